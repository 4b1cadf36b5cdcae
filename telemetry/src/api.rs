//! `GET /trace/<id>`: what this process knows of the history of a message, for programs to serve.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use galerna_http::ApiError;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `GET /trace/<id>` of this process.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(history))
}

/// The history of a message, or of all messages of a call, as far as this process knows it.
#[utoipa::path(get, path = "/trace/{message}",
    params(("message" = String, Path, description = "id of a message, or of a call (`x-request-id`)")),
    responses(
        (status = 200, description = "what happened, in order", body = Object, example = json!({
            "message": "015f3b2f4c00a1b2c3d4e5f60718.0",
            "steps": [{"at": "2017-01-01T00:00:00.000Z", "where": "store", "what": "100 readings stored",
                "message": "015f3b2f4c00a1b2c3d4e5f60718.0"}]})),
        (status = 404, description = "`unknown_message`: it is unknown or too old", body = ref("#/components/schemas/ErrorBody"))))]
async fn history(Path(message): Path<String>) -> Result<Json<Value>, ApiError> {
    let steps = crate::history(&message);
    if steps.is_empty() {
        let why = "nothing is known here of this message: it is unknown, too old, or still on its way";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_message", why));
    }
    Ok(Json(json!({ "message": message, "steps": steps })))
}
