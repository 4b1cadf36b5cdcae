//! Notification lists.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use galerna_http::{ApiError, ErrorBody, JsonBody};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, failed, not_found, refused};
use crate::lists::{Added, Contact, List, Removed, check_name, key};

/// A list to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewList {
    /// Its name: 1 to 100 characters, unlike that of any other list.
    name: String,
}

/// A contact.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ContactBody {
    /// A mail address, unlike all others of its list, regardless of case.
    address: String,
}

/// All lists, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllLists {
    /// The lists.
    lists: Vec<List>,
}

/// The contacts of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Contacts {
    /// Mail addresses, in the order in which they came.
    contacts: Vec<String>,
}

fn exists(what: &str, name: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "exists", format!("there is a {what} `{name}` already"))
}

async fn list(api: &Api, name: &str) -> Result<Arc<List>, ApiError> {
    api.lists.get(name).await.map_err(failed)?.ok_or_else(|| not_found("list", name))
}

/// All notification lists.
#[utoipa::path(get, path = "/api/v1/lists", responses((status = 200, description = "the lists", body = AllLists)))]
pub(super) async fn get_lists(State(api): State<Api>) -> Result<Json<AllLists>, ApiError> {
    let lists = api.lists.all().await.map_err(failed)?;
    Ok(Json(AllLists { lists: lists.iter().map(|list| List::clone(list)).collect() }))
}

/// Adds an empty list.
#[utoipa::path(post, path = "/api/v1/lists", request_body = NewList, responses(
    (status = 201, description = "it is there now", body = List),
    (status = 400, description = "`malformed_json`", body = ErrorBody),
    (status = 403, description = "`exists`: a list has this name already", body = ErrorBody),
    (status = 413, description = "`body_too_large`", body = ErrorBody),
    (status = 422, description = "`invalid`, `wrong_shape`", body = ErrorBody),
))]
pub(super) async fn post_list(
    State(api): State<Api>,
    JsonBody(NewList { name }): JsonBody<NewList>,
) -> Result<(StatusCode, Json<List>), ApiError> {
    check_name(&name).map_err(|why| refused("name", why))?;
    match api.lists.create(&name).await.map_err(failed)? {
        Added::Yes | Added::NoList => Ok((StatusCode::CREATED, Json(List { name, contacts: Vec::new() }))),
        Added::Exists => Err(exists("list", &name)),
    }
}

/// One list.
#[utoipa::path(get, path = "/api/v1/lists/{list}", params(("list" = String, Path)), responses(
    (status = 200, description = "the list", body = List),
    (status = 404, description = "`not_found`", body = ErrorBody),
))]
pub(super) async fn get_list(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<List>, ApiError> {
    Ok(Json(List::clone(&*list(&api, &name).await?)))
}

/// Removes a list with its contacts.
#[utoipa::path(delete, path = "/api/v1/lists/{list}", params(("list" = String, Path)), responses(
    (status = 204, description = "it is gone"),
    (status = 404, description = "`not_found`", body = ErrorBody),
))]
pub(super) async fn delete_list(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    match api.lists.remove(&name).await.map_err(failed)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found("list", &name)),
    }
}

/// The contacts of a list.
#[utoipa::path(get, path = "/api/v1/lists/{list}/contacts", params(("list" = String, Path)), responses(
    (status = 200, description = "the contacts", body = Contacts),
    (status = 404, description = "`not_found`: there is no such list", body = ErrorBody),
))]
pub(super) async fn get_contacts(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Contacts>, ApiError> {
    Ok(Json(Contacts { contacts: list(&api, &name).await?.contacts.clone() }))
}

/// Adds a contact to a list. Of any number of callers that add the same at the same time, one does.
#[utoipa::path(post, path = "/api/v1/lists/{list}/contacts", params(("list" = String, Path)), request_body = ContactBody, responses(
    (status = 201, description = "it is there now", body = ContactBody),
    (status = 400, description = "`malformed_json`", body = ErrorBody),
    (status = 403, description = "`exists`: the list has this address already, perhaps in other case", body = ErrorBody),
    (status = 404, description = "`not_found`: there is no such list", body = ErrorBody),
    (status = 413, description = "`body_too_large`", body = ErrorBody),
    (status = 422, description = "`invalid`, `wrong_shape`: this is no mail address", body = ErrorBody),
))]
pub(super) async fn post_contact(
    State(api): State<Api>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<ContactBody>,
) -> Result<(StatusCode, Json<ContactBody>), ApiError> {
    let contact = Contact::parse(&body.address).map_err(|why| refused("address", why))?;
    match api.lists.add(&name, &contact).await.map_err(failed)? {
        Added::Yes => Ok((StatusCode::CREATED, Json(ContactBody { address: contact.address().to_owned() }))),
        Added::Exists => Err(exists("contact", contact.address())),
        Added::NoList => Err(not_found("list", &name)),
    }
}

/// Whether an address is in a list, and how it is written there.
#[utoipa::path(get, path = "/api/v1/lists/{list}/contacts/{address}", params(("list" = String, Path), ("address" = String, Path)), responses(
    (status = 200, description = "it is", body = ContactBody),
    (status = 404, description = "`not_found`", body = ErrorBody),
))]
pub(super) async fn get_contact(
    State(api): State<Api>,
    Path((name, address)): Path<(String, String)>,
) -> Result<Json<ContactBody>, ApiError> {
    let list = list(&api, &name).await?;
    list.find(&key(&address))
        .map(|address| Json(ContactBody { address: address.to_owned() }))
        .ok_or_else(|| not_found("contact", &address))
}

/// Removes a contact.
#[utoipa::path(delete, path = "/api/v1/lists/{list}/contacts/{address}", params(("list" = String, Path), ("address" = String, Path)), responses(
    (status = 204, description = "it is gone"),
    (status = 404, description = "`not_found`", body = ErrorBody),
))]
pub(super) async fn delete_contact(
    State(api): State<Api>,
    Path((name, address)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    match api.lists.drop_contact(&name, &key(&address)).await.map_err(failed)? {
        Removed::Yes => Ok(StatusCode::NO_CONTENT),
        Removed::Unknown => Err(not_found("contact", &address)),
        Removed::NoList => Err(not_found("list", &name)),
    }
}
