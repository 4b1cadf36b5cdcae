//! An HTTP server that notes what it is sent and answers as it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::world::until;

/// What was sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Call {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// Id, kind and device of each event of a default body.
    pub(crate) fn event_ids(&self) -> Vec<(String, String, String)> {
        let body: Value = serde_json::from_str(&self.body).expect("a JSON body");
        let events = body["data"]["events"].as_array().expect("events");
        let text = |event: &Value, field: &str| event[field].as_str().expect("text").to_owned();
        events.iter().map(|event| (text(event, "id"), text(event, "kind"), text(event, "device"))).collect()
    }

    /// Kind and device of each event of a default body.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        self.event_ids().into_iter().map(|(_, kind, device)| (kind, device)).collect()
    }
}

/// What to answer.
#[derive(Clone)]
pub(crate) enum Answer {
    Status(u16),
    Full(u16, Vec<(&'static str, String)>, String),
    /// A body that never ends.
    Endless(u16),
    Hang,
    /// 204, when a permit is there.
    When(Arc<Semaphore>),
}

type Script = Box<dyn Fn(&Call, usize) -> Answer + Send + Sync>;

struct Shared {
    calls: Mutex<Vec<(Call, bool)>>,
    script: Mutex<Script>,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Answers 204.
    pub(crate) async fn start() -> Self {
        Self::answering(|_, _| Answer::Status(204)).await
    }

    /// Answers each call as `script` says, which is given the number of calls before.
    pub(crate) async fn answering(script: impl Fn(&Call, usize) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { calls: Mutex::default(), script: Mutex::new(Box::new(script)) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    pub(crate) fn answer(&self, script: impl Fn(&Call, usize) -> Answer + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// All calls, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    /// Those that were answered with 2xx.
    pub(crate) fn taken(&self) -> Vec<Call> {
        let calls = self.shared.calls.lock().unwrap();
        calls.iter().filter(|(_, taken)| *taken).map(|(call, _)| call.clone()).collect()
    }

    /// Kind and device of the events that were taken, in order.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        self.taken().iter().flat_map(Call::events).collect()
    }

    pub(crate) async fn called(&self, times: usize) -> Vec<Call> {
        until(&format!("{times} calls"), || async { self.calls().len() >= times }).await;
        self.calls()
    }

    pub(crate) async fn took(&self, events: usize) -> Vec<(String, String)> {
        until(&format!("{events} events taken"), || async { self.events().len() >= events }).await;
        self.events()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 22).await.unwrap();
    let call = Call {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let answer = {
        let mut calls = shared.calls.lock().unwrap();
        let answer = (shared.script.lock().unwrap())(&call, calls.len());
        let taken = match &answer {
            Answer::Status(status) | Answer::Full(status, ..) | Answer::Endless(status) => {
                (200..300).contains(status)
            }
            Answer::Hang => false,
            Answer::When(_) => true,
        };
        calls.push((call, taken));
        answer
    };
    let respond = |status: u16, headers: Vec<(&'static str, String)>, body: Body| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(body).unwrap()
    };
    match answer {
        Answer::Status(status) => respond(status, Vec::new(), Body::empty()),
        Answer::Full(status, headers, body) => respond(status, headers, Body::from(body)),
        Answer::Endless(status) => {
            let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 65_536]));
            respond(status, Vec::new(), Body::from_stream(chunks))
        }
        Answer::Hang => std::future::pending().await,
        Answer::When(permits) => {
            permits.acquire().await.unwrap().forget();
            respond(204, Vec::new(), Body::empty())
        }
    }
}
