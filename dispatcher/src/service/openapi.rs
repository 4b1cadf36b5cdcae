//! The OpenAPI document.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::body::LeasesBody;
use super::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "Galerna dispatcher", description = "Leases queues to consumers."),
    paths(
        routes::next,
        routes::hint,
        routes::status,
        routes::queue,
        routes::release,
        routes::renew,
        routes::pause,
        routes::unpause,
        routes::stop,
        routes::start,
        routes::strategy,
        routes::set_strategy,
        routes::healthz,
        routes::readyz,
        routes::metrics,
        routes::document,
    ),
    components(schemas(LeasesBody))
)]
struct Document;

pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.put, &mut item.post].into_iter().flatten() {
            add_refusals(path, operation);
        }
    }
    document
}

/// Adds the refusals that routes have in common.
fn add_refusals(path: &str, operation: &mut Operation) {
    let names_a_queue = path.contains("{id}");
    let has_body = operation.request_body.is_some();
    let responses = &mut operation.responses.responses;
    let mut add = |status: &str, description: &str| {
        let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", error);
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response.build()));
    };
    if !matches!(path, "/healthz" | "/readyz") {
        add("401", "`unauthorized`: a token is demanded and was not sent");
    }
    if names_a_queue {
        add(
            "400",
            if has_body { "`invalid_path` or `malformed_json`" } else { "`invalid_path`: it is no text" },
        );
        add("503", "`unavailable`: the store is away");
    }
    if has_body {
        add("400", "`malformed_json`: the body is no JSON");
        add("413", "`body_too_large`: the body has more than 1 MiB");
        add("422", "`wrong_shape`: the body has other fields than these");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_documented_and_every_documented_route_is_served() {
        let served: BTreeSet<(String, String)> = super::routes::all()
            .iter()
            .flat_map(|r| r.methods.iter().map(|m| (r.path.to_owned(), (*m).to_owned())))
            .collect();
        let document = serde_json::to_value(super::document()).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|m| (path.clone(), m.clone())))
            .collect();
        assert_eq!(served, documented);
    }
}
