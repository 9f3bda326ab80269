//! The REST API and the console over a real listener and a real database: what they refuse, what
//! they say, and that nothing a host sends becomes markup.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod access;
mod client;
mod document;
mod events;
mod folding;
mod health;
mod shapes;
mod site;

use serde_json::Value as Json;
use trueline_store::{Role, TokenKind};

fn operations(document: &Json) -> Vec<(String, String, Json)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    operations.collect()
}

fn problem(answer: &client::Answer, status: u16) -> Json {
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["instance"].is_string(), "{problem}");
    problem
}

/// `TRUELINE_SHOW=8099 cargo test -p trueline-collector --test rest -- --ignored --nocapture` serves a seeded console until
/// its standard input ends.
#[tokio::test]
#[ignore = "serves a console for a person to look at; set TRUELINE_SHOW to a port"]
async fn show() {
    let Some(port) = std::env::var("TRUELINE_SHOW").ok().and_then(|port| port.parse().ok()) else { return };
    let mut site = site::shown(port).await;
    let line = || std::io::stdin().lines().next();
    let api = site.token(TokenKind::Api, Role::Operator).await;
    println!("http://{}/login?token={} {api}", site.at, site.token(TokenKind::Login, Role::Operator).await);
    let mut number = 0;
    while let Ok(Some(Ok(_))) = tokio::task::spawn_blocking(line).await {
        number += 1;
        site.change("sysctl:vm.swappiness", "value", "60", &number.to_string()).await;
        println!("http://{}/login?token={}", site.at, site.token(TokenKind::Login, Role::Operator).await);
    }
    site.stop().await;
}
