//! The description of a service's routes, from the same list as its router.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api_error::ErrorBody;
use crate::{health, method_not_allowed, no_route};

/// The document as it is served.
#[derive(Clone)]
struct Served(Bytes);

/// The description of this API.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
async fn document(Extension(Served(text)): Extension<Served>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The router of these routes and of `/healthz`, and its description, which it serves as `/openapi.json`. `describe` adds what
/// is said of all of them. Unknown paths and methods are answered as errors of the API.
pub fn served<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    describe: impl FnOnce(&mut OpenApi),
) -> (Router<S>, Arc<OpenApi>) {
    let (router, mut description) =
        routes.routes(routes!(health::healthz)).routes(routes!(document)).split_for_parts();
    add_schema(&mut description);
    describe(&mut description);
    let text = serde_json::to_vec(&description).map(Bytes::from).unwrap_or_else(|e| {
        tracing::error!(error = %e, "the description of an API cannot be written");
        Bytes::from_static(b"{}")
    });
    let router = router
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(Served(text)));
    (router, Arc::new(description))
}

/// A description with the form of errors, which every route refers to: for routes that a program serves in its own way.
#[must_use]
pub fn with_errors(mut description: OpenApi) -> OpenApi {
    add_schema(&mut description);
    description
}

/// The form of errors is always described: what is added to all routes refers to it.
fn add_schema(description: &mut OpenApi) {
    use utoipa::{PartialSchema, ToSchema};
    let components = description.components.get_or_insert_default();
    let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut schemas);
    for (name, schema) in schemas {
        components.schemas.entry(name).or_insert(schema);
    }
}

/// Adds an answer to a call, unless it says something of that status already.
pub fn add_error(operation: &mut Operation, status: &str, description: &str) {
    let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let response = ResponseBuilder::new().description(description).content("application/json", error);
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response.build()));
}

/// Goes through all calls of a description: path, method in lower case, and what is said of it.
pub fn operations(description: &mut OpenApi) -> impl Iterator<Item = (&str, &'static str, &mut Operation)> {
    description.paths.paths.iter_mut().flat_map(|(path, item)| {
        let all = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
        ];
        all.into_iter().filter_map(move |(method, operation)| {
            operation.as_mut().map(|operation| (path.as_str(), method, operation))
        })
    })
}
