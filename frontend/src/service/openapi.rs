//! The OpenAPI document.

use utoipa::OpenApi;

use super::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "Galerna frontend", description = "Takes readings of concentrators."),
    paths(
        routes::readings,
        routes::insert_json,
        routes::healthz,
        routes::readyz,
        routes::metrics,
        routes::statistics,
        routes::refresh,
        routes::document,
    )
)]
struct Document;

pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
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
