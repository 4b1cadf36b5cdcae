//! What is said of all routes in the OpenAPI document.

use galerna_http::openapi::{add_error, operations};
use utoipa::openapi::{OpenApi, RefOr, Required};

use super::OPEN_PATHS;

/// Paths whose body has a field that must be there; an empty body of the others counts as `{}`.
const NEEDS_BODY: [&str; 4] = ["/queue/hint", "/queue/{id}/release", "/queue/{id}/renew", "/strategy"];

/// Adds the refusals that routes have in common.
pub(super) fn describe(description: &mut OpenApi) {
    for (path, _, operation) in operations(description) {
        let names_a_queue = path.contains("{id}");
        let has_body = operation.request_body.is_some();
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && !NEEDS_BODY.contains(&path)
        {
            body.required = Some(Required::False);
        }
        if !OPEN_PATHS.contains(&path) {
            add_error(operation, "401", "`unauthorized`: a token is demanded and was not sent");
            add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        }
        if names_a_queue {
            let codes =
                if has_body { "`invalid_path` or `malformed_json`" } else { "`invalid_path`: it is no text" };
            add_error(operation, "400", codes);
            add_error(operation, "503", "`unavailable`: the store does not answer");
        }
        if has_body {
            add_error(operation, "400", "`malformed_json`: the body is no JSON");
            add_error(operation, "413", "`body_too_large`: the body has more than 1 MiB");
            add_error(operation, "422", "`wrong_shape`: the body has other fields than these");
        }
    }
}
