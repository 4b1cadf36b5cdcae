//! Mail, handed to a real SMTP server.

use std::process::Stdio;

use galerna_model::AlertEventKind::{Raised, Resolved};
use galerna_notifier::{Options, Smtp};
use galerna_storage::DeliveryStatus::{Dead, Delivered};
use galerna_storage::{Endpoint, EndpointKind};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::python::Python;
use crate::world::{DEADLINE, World, hook, options, raised, resolved};

/// `aiosmtpd`; it says what it takes, a line each.
struct MailServer {
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl MailServer {
    async fn start() -> Self {
        let mut command = Python::shared().await.script("smtp_server.py");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let first = timeout(DEADLINE, lines.next_line()).await.expect("it says its port").unwrap();
        let port = first.expect("a line").parse().expect("a port");
        Self { port, lines, _process: process }
    }

    async fn next(&mut self) -> Value {
        let line = timeout(DEADLINE, self.lines.next_line()).await.expect("a mail comes").unwrap();
        serde_json::from_str(&line.expect("a line")).expect("JSON")
    }
}

fn mail(id: &str, to: &[&str]) -> Endpoint {
    let kind = EndpointKind::Email {
        to: to.iter().map(|address| (*address).to_owned()).collect(),
        subject: None,
        text: None,
        html: None,
    };
    Endpoint { kind, ..hook(id, "http://unused.example/") }
}

fn with_server(port: u16) -> Options {
    let smtp =
        Smtp { url: format!("smtp://127.0.0.1:{port}"), from: "Galerna <alerts@galerna.example>".into() };
    Options { smtp: Some(smtp), ..options() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_and_its_recovery_come_as_mails_in_text_and_html() {
    let mut server = MailServer::start().await;
    let mut world = World::embedded().await;
    world.endpoint(mail("mail", &["Ann <ann@example.com>", "bob@example.com"])).await;
    world.rule("r", &["mail"]).await;
    world.start(with_server(server.port)).await;
    world.raise(&[raised("<b>Zähler</b>", 0), resolved("<b>Zähler</b>", 10)]).await;
    let (alert, recovery) = (server.next().await, server.next().await);
    let delivery = world.delivery(Raised, "<b>Zähler</b>", Delivered).await;
    assert_eq!(alert["mail_from"], "alerts@galerna.example");
    assert_eq!(alert["rcpt_tos"], serde_json::json!(["ann@example.com", "bob@example.com"]));
    assert_eq!(alert["from"], "Galerna <alerts@galerna.example>");
    assert_eq!(alert["subject"], "CRITICAL: Rule r (<b>Zähler</b>)");
    assert_eq!(alert["message_id"], format!("<{}@galerna.example>", delivery.id));
    assert_eq!(alert["auto_submitted"], "auto-generated");
    let (text, html) = (alert["text"].as_str().unwrap(), alert["html"].as_str().unwrap());
    assert!(text.contains("RAISED (critical): Rule r") && text.contains("device <b>Zähler</b>"), "{text}");
    assert!(
        html.contains("&lt;b&gt;Zähler&lt;&#x2f;b&gt;") || html.contains("&lt;b&gt;Zähler&lt;/b&gt;"),
        "{html}"
    );
    assert!(!html.contains("<b>Zähler"), "{html}");
    assert_eq!(recovery["subject"], "Recovered: Rule r (<b>Zähler</b>)");
    assert_ne!(recovery["message_id"], alert["message_id"]);
    let recovered = world.delivery(Resolved, "<b>Zähler</b>", Delivered).await;
    assert_eq!(recovered.attempts[0].status, Some(250));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_to_come_back_is_asked_again_and_one_that_refuses_is_not() {
    let mut server = MailServer::start().await;
    let mut world = World::embedded().await;
    world.endpoint(mail("busy", &["busy@example.com"])).await;
    world.endpoint(mail("refused", &["refused@example.com"])).await;
    world.rule("r", &["busy", "refused"]).await;
    world.start(with_server(server.port)).await;
    world.raise(&[raised("d", 0)]).await;
    let taken = server.next().await;
    assert_eq!(taken["rcpt_tos"], serde_json::json!(["busy@example.com"]));
    world.quiet(2).await;
    for delivery in world.deliveries().await {
        let status: Vec<_> = delivery.attempts.iter().map(|a| a.status).collect();
        match delivery.endpoint.as_str() {
            "busy" => {
                assert_eq!((delivery.status, status), (Delivered, vec![Some(451), Some(451), Some(250)]));
                assert_eq!(taken["message_id"], format!("<{}@galerna.example>", delivery.id));
            }
            _ => {
                assert_eq!((delivery.status, status), (Dead, vec![Some(550)]));
                assert!(delivery.reason.unwrap().contains("no such mailbox"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_options_that_are_wrong_are_refused_without_their_password() {
    let world = World::embedded().await;
    for (url, from, part) in [
        ("smtp.example.com", "a@example.com", "smtp.url"),
        ("http://user:hunter2@example.com", "a@example.com", "smtp.url"),
        ("smtp://user:hunter2@example.com", "nobody", "smtp.from `nobody`"),
    ] {
        let smtp = Some(Smtp { url: url.into(), from: from.into() });
        let error = galerna_notifier::Notifier::open(world.parts(), Options { smtp, ..options() }).await;
        let error = error.err().expect("refused").to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}
