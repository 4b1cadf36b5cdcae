//! The description of the page's API, made from the lists that its routes are made of.

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use galerna_http::openapi::{add_error, operations, with_errors};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{Content, OpenApi, Ref, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::act::Act;

/// Where it is served.
pub(super) const PATH: &str = "/openapi.json";

/// A time in a body.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)] // says only how `Timestamp` is written
pub(super) enum Time {
    /// RFC 3339 with an offset.
    #[schema(format = DateTime)]
    Text(String),
    /// Milliseconds since 1970.
    Millis(i64),
}

/// What every action answers.
#[derive(ToSchema)]
#[allow(dead_code)] // the answer is put together field by field
pub(super) struct Done {
    /// What was done, for people. Beside it is what the action made, such as an id.
    done: String,
}

/// The document as it is served.
#[derive(Clone)]
pub(super) struct Served(Bytes);

impl Served {
    pub(super) fn new(description: &OpenApi) -> Self {
        Self(serde_json::to_vec(description).map(Bytes::from).unwrap_or_else(|e| {
            tracing::error!(error = %e, "the description of the page's API cannot be written");
            Bytes::from_static(b"{}")
        }))
    }
}

/// `GET /openapi.json`
pub(super) async fn show(Extension(Served(text)): Extension<Served>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Describes an action.
pub(super) fn add_action<A: Act>(description: &mut OpenApi, path: &str, about: &str) {
    let mut schemas = vec![("Done".to_owned(), Done::schema())];
    A::schemas(&mut schemas);
    let components = description.components.get_or_insert_default();
    for (name, schema) in schemas {
        components.schemas.entry(name).or_insert(schema);
    }
    let body = RequestBodyBuilder::new()
        .content("application/json", Content::new(Some(A::schema())))
        .required(Some(Required::True))
        .build();
    let done = ResponseBuilder::new()
        .description("what was done")
        .content("application/json", Content::new(Some(Ref::from_schema_name("Done"))));
    let mut operation = OperationBuilder::new()
        .summary(Some(about))
        .operation_id(Some(A::NAME))
        .tag("actions")
        .request_body(Some(body))
        .response("200", done)
        .build();
    add_error(&mut operation, "404", "`unknown`: there is no such thing");
    add_error(&mut operation, "409", "`conflict`: something is in the way now");
    add_error(&mut operation, "413", "`too_large`: the body has more than 1 MiB");
    description.paths.paths.insert(path.to_owned(), PathItem::new(HttpMethod::Post, operation));
}

/// Says what all calls have in common.
pub(super) fn complete(description: OpenApi, version: &str) -> OpenApi {
    let mut description = with_errors(description);
    "Galerna page".clone_into(&mut description.info.title);
    description.info.description = Some(
        "What the page shows and does, for programs. Each call needs the token of a viewer, each action that of an operator, as \
         `Authorization: Bearer`, unless the page has no tokens; `x-actor` names who is behind it."
            .to_owned(),
    );
    version.clone_into(&mut description.info.version);
    for (_, _, operation) in operations(&mut description) {
        add_error(operation, "401", "`unauthorized`: a token is demanded and was not sent");
        add_error(operation, "403", "`forbidden`: not with this token, or not from there");
        add_error(operation, "422", "`invalid`: what was sent is wrong, and which field");
        add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        add_error(operation, "503", "`unavailable`: a module or a store does not answer");
    }
    description
}
