//! Bearer tokens: `Authorization: Bearer <token>` (RFC 6750).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use crate::api_error::ApiError;
use crate::throttle::Throttle;

/// The token that a request brings. The scheme may be written in whatever case (RFC 9110, section 11.1).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Something that only those know who may do more. It is compared in a time that tells its length at most, and never shown.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A secret; none when the text is empty, which anybody can guess.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Arc::from(text)))
    }

    /// Whether this is it.
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Lets those in who bring the token, and all when there is none. Clones are the same guard.
#[derive(Debug, Clone)]
pub struct Guard {
    token: Option<Secret>,
    wrong: Throttle,
    /// Paths that need no token.
    open: &'static [&'static str],
}

impl Guard {
    /// Asks for this token; for none when there is none, or it is empty.
    pub fn new(token: Option<&str>) -> Self {
        Self { token: token.and_then(Secret::new), wrong: Throttle::default(), open: &[] }
    }

    /// Whether nobody is asked for a token.
    pub fn is_open(&self) -> bool {
        self.token.is_none()
    }

    /// Whether a request may pass, by its headers and the address it came from. The right token always passes, whatever was
    /// tried before from its address: whoever else is there must not be able to lock its owner out.
    ///
    /// # Errors
    /// 401 `unauthorized`; 429 `too_many_tries` when too many wrong tokens came from there.
    pub fn check(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = bearer(headers);
        if given.is_some_and(|given| token.is(given)) {
            return Ok(());
        }
        if given.is_some()
            && let Err(wait) = self.wrong.failed(from)
        {
            let message = "too many wrong tokens came from this address; wait, then send the right one";
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tries", message);
            return Err(error.retry_after(wait));
        }
        let message = "send `Authorization: Bearer <token>` with the token of this service";
        Err(ApiError::unauthorized("Bearer", message))
    }

    /// Guards all routes of a router but those of these paths, written as they are routed.
    pub fn protect<S: Clone + Send + Sync + 'static>(
        &self,
        router: Router<S>,
        open: &'static [&'static str],
    ) -> Router<S> {
        let guard = Self { open, ..self.clone() };
        router.layer(middleware::from_fn_with_state(guard, require))
    }
}

async fn require(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if route.is_none_or(|route| !guard.open.contains(&route.as_str())) {
        let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|from| from.0.ip());
        if let Err(refused) = guard.check(request.headers(), from) {
            return refused.into_response();
        }
    }
    next.run(request).await
}

/// A service without a token on an address that other machines reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {service} on {address} would be open to other machines and needs a token; set a token or listen on 127.0.0.1"
)]
pub struct Exposed {
    /// The service.
    pub service: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Refuses to serve other machines without a token.
///
/// # Errors
/// [`ServeError::TokenNeeded`](crate::ServeError::TokenNeeded), or that the listener has no address.
pub fn check_exposure(
    listener: &TcpListener,
    guard: &Guard,
    service: &'static str,
) -> Result<(), crate::ServeError> {
    let address = listener.local_addr()?;
    if guard.is_open() && !address.ip().is_loopback() {
        return Err(crate::ServeError::TokenNeeded(Exposed { service, address }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(credentials: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, credentials.parse().unwrap())])
    }

    #[test]
    fn the_scheme_is_taken_in_whatever_case() {
        for (credentials, token) in [
            ("Bearer secret", Some("secret")),
            ("bearer secret", Some("secret")),
            ("BEARER  secret", Some("secret")),
            ("Basic secret", None),
            ("secret", None),
            ("Bearer", None),
            ("Bearersecret", None),
        ] {
            assert_eq!(bearer(&headers(credentials)), token, "{credentials}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn only_the_secret_itself_is_taken_and_it_is_not_shown() {
        let secret = Secret::new("secret").unwrap();
        assert!(secret.is("secret"));
        for other in ["secreT", "secretsecret", "secre", "", "x"] {
            assert!(!secret.is(other), "{other}");
        }
        assert!(Secret::new("").is_none());
        assert!(!format!("{:?}", Guard::new(Some("secret"))).contains("secret\""));
    }

    #[test]
    fn who_guesses_is_slowed_down_and_who_knows_the_token_is_not() {
        let guard = Guard::new(Some("secret"));
        let (guesser, other) = (Some("10.0.0.1".parse().unwrap()), Some("10.0.0.2".parse().unwrap()));
        let mut statuses = Vec::new();
        for n in 0..20 {
            let refused = guard.check(&headers(&format!("Bearer guess-{n}")), guesser).unwrap_err();
            statuses.push(refused.status().as_u16());
        }
        assert_eq!((statuses[0], statuses[19]), (401, 429));
        assert_eq!(guard.check(&headers("Bearer secret"), guesser), Ok(()));
        let missing = guard.check(&HeaderMap::new(), guesser).unwrap_err();
        assert_eq!(missing.status(), StatusCode::UNAUTHORIZED, "no token is no guess");
        assert_eq!(guard.check(&headers("Bearer x"), other).unwrap_err().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(Guard::new(None).check(&HeaderMap::new(), None), Ok(()));
    }
}
