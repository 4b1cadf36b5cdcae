//! Signatures, verified by the Standard Webhooks library of another language.

use std::process::Stdio;

use galerna_notifier::new_secret;
use galerna_storage::{Endpoint, EndpointKind};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::python::Python;
use crate::receiver::{Answer, Receiver};
use crate::world::{DEADLINE, World, hook, options, raised, resolved};

async fn verify(secret: &str, headers: &Value, body: &str) -> String {
    let mut verifier = Python::shared()
        .await
        .script("verify.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let call = json!({"secret": secret, "headers": headers, "body": body});
    let mut input = verifier.stdin.take().expect("its input");
    input.write_all(call.to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = timeout(DEADLINE, verifier.wait_with_output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_library_verifies_every_attempt() {
    let mut world = World::embedded().await;
    let receiver = Receiver::answering(|_, before| Answer::Status(if before == 0 { 500 } else { 200 })).await;
    let secret = new_secret().unwrap();
    let kind = EndpointKind::Webhook {
        url: receiver.url(),
        method: "POST".into(),
        headers: [].into(),
        body: None,
        secret: Some(secret.clone()),
    };
    world.endpoint(Endpoint { kind, ..hook("hook", &receiver.url()) }).await;
    world.rule("r", &["hook"]).await;
    world.start(options()).await;
    // Letters of several bytes: it is bytes that are signed.
    world.raise(&[raised("Zähler-°C", 0), resolved("Zähler-°C", 10)]).await;
    receiver.took(2).await;
    for call in receiver.calls() {
        let headers = json!(call.headers);
        assert_eq!(verify(&secret, &headers, &call.body).await, "verified");
        assert_eq!(verify(&secret, &headers, &format!("{} ", call.body)).await, "refused");
        assert_eq!(verify(&new_secret().unwrap(), &headers, &call.body).await, "refused");
        let mut other_id = headers.clone();
        other_id["webhook-id"] = "dlv_other".into();
        assert_eq!(verify(&secret, &other_id, &call.body).await, "refused");
    }
}
