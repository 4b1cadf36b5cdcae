//! Calls to RabbitMQ's management API.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The management API of one server.
///
/// It is called with a few lines of HTTP/1.0 rather than through a client library, so that this crate builds in a moment.
#[derive(Clone, Debug)]
pub(crate) struct Management {
    host: String,
    user: String,
    password: String,
}

impl Management {
    /// The API at `http://user:password@host:port`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub(crate) fn at(uri: &str) -> Result<Self, String> {
        let rest = uri
            .strip_prefix("http://")
            .ok_or_else(|| format!("a management address begins with `http://`, unlike `{uri}`"))?;
        let rest = rest.split('/').next().unwrap_or_default();
        let (login, host) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:15672") };
        Ok(Self { host, user: percent_decoded(user), password: percent_decoded(password) })
    }

    /// The status and body of the answer to one call; `path` begins with `/api/`.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let authorization = BASE64.encode(format!("{}:{}", self.user, self.password));
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Basic {authorization}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(&self.host).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = timeout(CALL_TIMEOUT, exchange).await??;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("what answers there does not speak HTTP"))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// A call that must succeed.
    ///
    /// # Panics
    /// With the answer, when it does not.
    pub(crate) async fn must(&self, method: &str, path: &str, body: &str) {
        match self.call(method, path, body).await {
            Ok((200..=299, _)) => {}
            Ok((status, body)) => {
                panic!("RabbitMQ's management API answered {method} {path} with {status}: {body}")
            }
            Err(error) => {
                panic!("RabbitMQ's management API at {} did not answer {method} {path}: {error}", self.host)
            }
        }
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
