//! Who may look and who may act: tokens, sessions, CSRF, and the headers that every answer carries.
//!
//! | credential | role |
//! |---|---|
//! | none, when no token is configured | operator, but only under a loopback name (`Host`), so that no foreign page can reach it by DNS |
//! | cookie `galerna_session` | that of the token given at `/login`; the cookie is random and means nothing elsewhere |
//! | `Authorization: Bearer <token>`, for `/api/…` and every page | that of the token |
//! | the same with the API token of the modules, for `/metrics` alone | |
//!
//! Sessions live in this process and end with it, after [`SESSION_LENGTH`], or at logout. Every POST must come from a page of the
//! same origin (`Origin`, `Sec-Fetch-Site`) and, unless a bearer token came with it, carry the session's CSRF token: forms as field
//! `csrf`, JSON calls as header `x-csrf-token`. Without tokens and sessions a JSON call need only be `application/json`, which
//! no foreign page can send without asking first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use galerna_audit::{random, short};
use galerna_http::browser::{is_loopback, same_site};
use galerna_http::{Secret, Throttle, bearer};
use galerna_lock::Mutex;
use tokio::time::Instant;
use url::Url;

use super::Page;
use super::fields::Fields;
use super::layout;
use super::openapi;
use super::problem::Problem;

/// The cookie of a session.
const COOKIE: &str = "galerna_session";
/// How long a session lasts.
pub(super) const SESSION_LENGTH: Duration = Duration::from_secs(12 * 3600);
/// Most sessions at once; the oldest gives way.
const MAX_SESSIONS: usize = 1_000;

/// The tokens of the page. With neither, everybody who reaches it over loopback is an operator.
#[derive(Clone, Default)]
pub struct Access {
    /// May look.
    pub viewer_token: Option<String>,
    /// May act too.
    pub operator_token: Option<String>,
    /// Reads `/metrics`, and nothing else.
    pub metrics_token: Option<String>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Viewer,
    Operator,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// How somebody proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// Nothing was asked.
    Open,
    /// By a session of this key.
    Session(String),
    Bearer,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) role: Role,
    /// As given at login; nobody checked it.
    pub(super) name: String,
    /// What forms of this visitor carry.
    pub(super) csrf: String,
    proof: Proof,
}

impl Visitor {
    pub(super) fn may_act(&self) -> bool {
        self.role == Role::Operator
    }

    /// Whether no login was asked for.
    pub(super) fn is_open(&self) -> bool {
        self.proof == Proof::Open
    }

    /// Whether there is a session to end.
    pub(super) fn has_session(&self) -> bool {
        matches!(self.proof, Proof::Session(_))
    }

    fn has_csrf(&self, given: &str) -> bool {
        Secret::new(&self.csrf).is_some_and(|csrf| csrf.is(given))
    }

    /// Checks the CSRF token of a form.
    pub(super) fn check_form(&self, fields: &Fields) -> Result<(), Problem> {
        match self.proof {
            Proof::Bearer => Ok(()),
            _ if self.has_csrf(fields.text("csrf")) => Ok(()),
            _ => Err(Problem::Forbidden(
                "this form is from another session; go back, load the page again and repeat".to_owned(),
            )),
        }
    }

    /// Checks that a JSON call cannot come from a foreign page.
    pub(super) fn check_call(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !text("content-type").starts_with("application/json") {
            return Err(Problem::Invalid("send `content-type: application/json`".to_owned()));
        }
        match self.proof {
            Proof::Session(_) if !self.has_csrf(text("x-csrf-token")) => {
                Err(Problem::Forbidden("send the CSRF token of the session as `x-csrf-token`".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

struct Session {
    role: Role,
    name: String,
    csrf: String,
    began: Instant,
}

/// Tokens, sessions and tries.
pub(super) struct AccessControl {
    viewer_token: Option<Secret>,
    operator_token: Option<Secret>,
    /// The CSRF token of those who need no session.
    open_csrf: String,
    sessions: Mutex<HashMap<String, Session>>,
    tries: Throttle,
}

impl AccessControl {
    pub(super) fn new(access: &Access) -> Self {
        let secret = |token: &Option<String>| token.as_deref().and_then(Secret::new);
        Self {
            viewer_token: secret(&access.viewer_token),
            operator_token: secret(&access.operator_token),
            open_csrf: random(),
            sessions: Mutex::default(),
            tries: Throttle::default(),
        }
    }

    /// Whether nobody has to log in.
    pub(super) fn is_open(&self) -> bool {
        self.viewer_token.is_none() && self.operator_token.is_none()
    }

    /// The role of a token.
    fn role(&self, token: &str) -> Option<Role> {
        let is = |known: &Option<Secret>| known.as_ref().is_some_and(|known| known.is(token));
        // Both are compared whatever the first says.
        let (operator, viewer) = (is(&self.operator_token), is(&self.viewer_token));
        if operator {
            Some(Role::Operator)
        } else if viewer {
            Some(Role::Viewer)
        } else {
            None
        }
    }

    /// The role of a token that came from this address. A known one passes whatever was tried before it: whoever else is behind
    /// the same address must not be able to lock its owner out. Of wrong ones only some are told that they are wrong.
    fn try_token(&self, token: &str, from: Option<IpAddr>) -> Result<Role, Problem> {
        if let Some(role) = self.role(token) {
            return Ok(role);
        }
        match self.tries.failed(from) {
            Ok(()) => Err(Problem::Unauthorized("this token is not known".to_owned())),
            Err(_) => Err(Problem::TooMany),
        }
    }

    /// Begins a session and returns its key.
    fn begin(&self, role: Role, name: String) -> String {
        let key = random();
        let now = Instant::now();
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, s| now - s.began < SESSION_LENGTH);
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.began).map(|(k, _)| k.clone())
        {
            sessions.remove(&oldest);
        }
        sessions.insert(key.clone(), Session { role, name, csrf: random(), began: now });
        key
    }

    /// Ends a session: at logout, or when its browser logs in anew.
    fn end(&self, key: &str) {
        self.sessions.lock().remove(key);
    }

    fn of_session(&self, key: &str) -> Option<Visitor> {
        let sessions = self.sessions.lock();
        let session = sessions.get(key).filter(|s| s.began.elapsed() < SESSION_LENGTH)?;
        Some(Visitor {
            role: session.role,
            name: session.name.clone(),
            csrf: session.csrf.clone(),
            proof: Proof::Session(key.to_owned()),
        })
    }

    /// Who asks, by these headers.
    fn visitor(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Visitor, Problem> {
        if let Some(token) = bearer(headers) {
            if self.is_open() {
                // A client that always sends its token is not turned away where none is asked for.
                return self.open_visitor(headers);
            }
            let role = self.try_token(token, from)?;
            let name = headers.get("x-actor").and_then(|v| v.to_str().ok()).unwrap_or_default();
            return Ok(Visitor { role, name: short(name), csrf: String::new(), proof: Proof::Bearer });
        }
        if self.is_open() {
            return self.open_visitor(headers);
        }
        cookie(headers).and_then(|key| self.of_session(key)).ok_or_else(|| {
            Problem::Unauthorized("log in first, or send `Authorization: Bearer <token>`".to_owned())
        })
    }

    fn open_visitor(&self, headers: &HeaderMap) -> Result<Visitor, Problem> {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !is_loopback(host) {
            return Err(Problem::Forbidden(format!(
                "this page has no tokens and so is served under loopback names only, not as `{}`; configure a token for viewers \
                 and one for operators, or open it as http://127.0.0.1",
                short(host)
            )));
        }
        let name = headers.get("x-actor").and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Visitor {
            role: Role::Operator,
            name: short(name),
            csrf: self.open_csrf.clone(),
            proof: Proof::Open,
        })
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn is_https(request_scheme: Option<&str>, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto").and_then(|v| v.to_str().ok());
    request_scheme == Some("https")
        || forwarded.is_some_and(|f| f.split(',').next().is_some_and(|f| f.trim() == "https"))
}

/// Lets those in who may: everybody who may look may GET, only operators may do more.
pub(super) async fn guard(State(page): State<Page>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path == openapi::PATH;
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let wants_page = only_looks && !is_api;
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let visitor = match page.access_control.visitor(request.headers(), from) {
        Ok(visitor) => visitor,
        Err(Problem::Unauthorized(_)) if wants_page && request.uri().path() != "/events" => {
            let next = request.uri().path_and_query().map_or("/", |p| p.as_str());
            return Redirect::to(&format!("/login?next={}", layout::encoded(next))).into_response();
        }
        Err(problem) => return problem.answer(is_api),
    };
    if !only_looks {
        if !same_site(request.headers()) {
            return Problem::Forbidden("this call comes from a page of another origin".to_owned())
                .answer(is_api);
        }
        if !visitor.may_act() && request.uri().path() != "/logout" {
            let message = "a viewer may look but not act; log in with the operator token".to_owned();
            return Problem::Forbidden(message).answer(is_api);
        }
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Where to go after login: only to this page set itself, whatever was asked for. It is read as a browser reads it, which drops
/// tabs and line ends, takes `\\` for `/`, and resolves dots.
pub(super) fn local_path(asked: &str) -> String {
    const HERE: &str = "http://page.invalid/";
    let home = || "/".to_owned();
    let Ok(here) = Url::parse(HERE) else { return home() };
    let Ok(there) = here.join(asked) else { return home() };
    let path = &there[url::Position::BeforePath..];
    // A path that begins with two slashes would be another host.
    let is_local = asked.starts_with('/') && there.origin() == here.origin() && !path.starts_with("//");
    if is_local { path.to_owned() } else { home() }
}

/// `GET /login`
pub(super) async fn login_form(
    State(page): State<Page>,
    axum::extract::Query(query): axum::extract::Query<HashMap<String, String>>,
) -> Response {
    if page.access_control.is_open() {
        return Redirect::to("/").into_response();
    }
    let next = query.get("next").map_or_else(|| "/".to_owned(), |next| local_path(next));
    layout::login(&next, None).into_response()
}

/// `POST /login`
pub(super) async fn login(State(page): State<Page>, request: Request) -> Response {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let https = is_https(request.uri().scheme_str(), request.headers());
    if !same_site(request.headers()) {
        return Problem::Forbidden("this form comes from a page of another origin".to_owned()).answer(false);
    }
    let older = cookie(request.headers()).map(str::to_owned);
    let body = match axum::body::to_bytes(request.into_body(), 16 << 10).await {
        Ok(body) => body,
        Err(e) => return Problem::Invalid(format!("the form cannot be read: {e}")).answer(false),
    };
    let fields = Fields::parse(&body);
    let next = local_path(fields.text("next"));
    match page.access_control.try_token(fields.text("token").trim(), from) {
        Ok(role) => {
            let name = short(fields.text("name"));
            tracing::info!(role = role.as_str(), name, "somebody logged in to the page");
            if let Some(older) = older {
                page.access_control.end(&older);
            }
            let key = page.access_control.begin(role, name);
            let secure = if https { "; Secure" } else { "" };
            let seconds = SESSION_LENGTH.as_secs();
            let cookie =
                format!("{COOKIE}={key}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
            ([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response()
        }
        Err(problem) => {
            let status = problem.status();
            let mut response = (status, layout::login(&next, Some(&problem.to_string()))).into_response();
            if status == StatusCode::TOO_MANY_REQUESTS {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            response
        }
    }
}

/// `POST /logout`
pub(super) async fn logout(
    State(page): State<Page>,
    axum::Extension(visitor): axum::Extension<Visitor>,
    body: axum::body::Bytes,
) -> Response {
    if let Err(problem) = visitor.check_form(&Fields::parse(&body)) {
        return problem.answer(false);
    }
    if let Proof::Session(key) = &visitor.proof {
        page.access_control.end(key);
    }
    let cookie = format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

/// The access control as the pages know it.
pub(super) type SharedAccess = Arc<AccessControl>;

#[cfg(test)]
mod tests {
    use super::local_path;

    #[test]
    fn the_way_after_login_stays_here_whatever_it_contains() {
        for (asked, to) in [
            ("/", "/"),
            ("/queues?state=idle&page=2", "/queues?state=idle&page=2"),
            ("/queues/a%20b#top", "/queues/a%20b#top"),
            ("/a/../queues", "/queues"),
            ("/añil", "/a%C3%B1il"),
            ("", "/"),
            ("queues", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("/\n/evil.example", "/"),
            ("/\r\n/evil.example", "/"),
            ("\t//evil.example", "/"),
            ("/.//evil.example", "/"),
            ("/..//evil.example", "/"),
            ("/%2e//evil.example", "/"),
            ("http://evil.example/", "/"),
            ("javascript:alert(1)", "/"),
            ("/\u{0}\u{7f}", "/%00%7F"),
        ] {
            assert_eq!(local_path(asked), to, "{asked:?}");
        }
    }
}
