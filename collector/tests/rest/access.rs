//! Who may ask, and that nothing a host sends becomes markup.

use serde_json::json;
use trueline_store::{Role, TokenKind};

use crate::client::send;
use crate::site::{Site, file};
use crate::{operations, problem};

const OPEN: &[&str] = &["/healthz", "/readyz"];
const PAGES: &[&str] = &["/", "/hosts", "/drift/1", "/feed/events"];

#[tokio::test]
async fn without_a_token_nothing_but_health_answers() {
    let site = Site::start(0).await;
    let admin = site.bearer(Role::Admin).await;
    let document = site.get("/api/v1/openapi.json", &admin).await.json();
    let session = site.token(TokenKind::Session, Role::Admin).await;
    let join = site.token(TokenKind::Join, Role::Admin).await;
    for (path, method, _) in operations(&document) {
        let path = path.replace("{id}", "1");
        let answer = send(site.at, &method, &path, &[], b"").await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(answer.status, 200, "{method} {path}");
            continue;
        }
        problem(&answer, 401);
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        // A token of another kind is none.
        for wrong in [&session, &join, "tl_api_0000"] {
            let bearer = format!("Bearer {wrong}");
            assert_eq!(send(site.at, &method, &path, &[("authorization", &bearer)], b"").await.status, 401, "{method} {path}");
        }
    }
    for path in PAGES {
        let answer = send(site.at, "GET", path, &[], b"").await;
        assert!(answer.status == 303 && answer.header("location").starts_with("/login"), "{path}: {answer:?}");
    }
    for (path, body) in [("/logout", ""), ("/drift/1/acknowledge", "note=x")] {
        let answer = send(site.at, "POST", path, &[("content-type", "application/x-www-form-urlencoded")], body.as_bytes()).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    site.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = Site::start(0).await;
    for path in ["/login", "/assets/console.js", "/api/v1/drift", "/nothing"] {
        let answer = send(site.at, "GET", path, &[], b"").await;
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!((answer.header("x-content-type-options"), answer.header("x-frame-options")), ("nosniff", "DENY"), "{path}");
    }
    assert_eq!(send(site.at, "GET", "/api/v1/drift", &[], b"").await.header("cache-control"), "no-store");
    site.stop().await;
}

#[tokio::test]
async fn what_a_host_sends_never_becomes_markup_or_a_terminal_command() {
    let item = "file:/tmp/<script>alert(1)</script>\u{1b}[2J\"'";
    let mut site = Site::start(0).await.with_host(&[(item, file("0644"))]).await;
    site.change(item, "mode", "0644", "<img src=x onerror=alert(2)>").await;
    let session = site.session(Role::Viewer).await;
    let viewer = site.bearer(Role::Viewer).await;
    let id = site.get("/api/v1/drift", &viewer).await.json()["items"][0]["id"].to_string();
    for path in ["/".to_owned(), format!("/drift/{id}"), "/hosts".to_owned()] {
        let page = send(site.at, "GET", &path, &[("cookie", &session)], b"").await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert!(!page.body.contains("<script>") && !page.body.contains("<img src=x") && !page.body.contains('\u{1b}'), "{path}");
        assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "{path}: needs an unsafe policy");
    }
    let feed = send(site.at, "GET", "/", &[("cookie", &session)], b"").await.body;
    assert!(feed.contains("&#60;script&#62;alert(1)") || feed.contains("&lt;script&gt;alert(1)"), "the item is shown");
    let drift = site.get("/api/v1/drift", &viewer).await.body;
    assert!(drift.contains(r"\\x1b[2J") && !drift.contains('\u{1b}'), "{drift}");
    let hostile = send(site.at, "GET", "/?verdict=%3Cscript%3E", &[("cookie", &session)], b"").await;
    assert!(hostile.status == 400 && !hostile.body.contains("<script>"), "{}", hostile.body);
    site.stop().await;
}

#[tokio::test]
async fn a_write_with_a_cookie_must_come_from_our_own_pages() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    site.change("file:/etc/hosts", "mode", "0644", "0666").await;
    let session = site.session(Role::Operator).await;
    let viewer = site.bearer(Role::Viewer).await;
    let id = site.get("/api/v1/drift", &viewer).await.json()["items"][0]["id"].to_string();
    let path = format!("/drift/{id}/acknowledge");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let cookie = ("cookie", session.as_str());
    for origin in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("x-nothing", "")] {
        let answer = send(site.at, "POST", &path, &[cookie, form, origin], b"note=x").await;
        assert_eq!(answer.status, 403, "{origin:?}");
        let answer = send(site.at, "POST", &format!("/api/v1{path}"), &[cookie, ("content-type", "application/json"), origin], b"{}").await;
        problem(&answer, 403);
    }
    let answer = send(site.at, "POST", &path, &[cookie, form, ("sec-fetch-site", "same-origin")], b"note=seen+it").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let drift = site.get(&format!("/api/v1/drift/{id}"), &viewer).await.json();
    assert_eq!((&drift["state"], &drift["acknowledged"]["note"]), (&json!("acknowledged"), &json!("seen it")));
    let actions = site.get("/api/v1/actions", &viewer).await.json();
    assert!(actions["items"].as_array().unwrap().iter().any(|action| action["action"] == "drift.acknowledge"), "{actions}");
    // A viewer may read and no more.
    let answer = site.post(&format!("/api/v1{path}"), &viewer, &json!({})).await;
    problem(&answer, 403);
    site.stop().await;
}

#[tokio::test]
async fn a_login_link_opens_the_console_once() {
    let site = Site::start(0).await;
    let login = site.token(TokenKind::Login, Role::Viewer).await;
    let path = format!("/login?token={login}");
    let first = send(site.at, "GET", &path, &[], b"").await;
    assert_eq!((first.status, first.header("location")), (303, "/"));
    let attributes = first.header("set-cookie");
    assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Strict") && attributes.contains("Path=/"), "{attributes}");
    let cookie = first.cookie();
    let headers = [("cookie", cookie.as_str())];
    let page = send(site.at, "GET", "/", &headers, b"").await;
    assert!(page.status == 200 && page.body.contains("No host yet"), "{}", page.body);
    let second = send(site.at, "GET", &path, &[], b"").await;
    assert!(second.status == 401 && second.header("set-cookie").is_empty() && second.body.contains("has been used"), "{second:?}");
    // An API token is no login link, and a session's token is no API token.
    let api = site.token(TokenKind::Api, Role::Viewer).await;
    assert_eq!(send(site.at, "GET", &format!("/login?token={api}"), &[], b"").await.status, 401);
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(send(site.at, "POST", "/logout", &headers, b"").await.status, 303);
    assert_eq!(send(site.at, "GET", "/", &headers, b"").await.header("location"), "/login");
    site.stop().await;
}

#[tokio::test]
async fn after_the_login_comes_the_page_that_was_asked_for_and_never_another_site() {
    let site = Site::start(0).await;
    let asked = send(site.at, "GET", "/?state=resolved", &[], b"").await;
    assert_eq!((asked.status, asked.header("location")), (303, "/login?from=/%3Fstate%3Dresolved"));
    let page = send(site.at, "GET", asked.header("location"), &[], b"").await;
    assert!(page.body.contains("name=\"from\" value=\"/?state=resolved\""), "{}", page.body);
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    for (from, goal) in
        [("/?state=resolved", "/?state=resolved"), ("//evil.example", "/"), ("https://evil.example/", "/"), ("/\\evil.example", "/")]
    {
        let api = site.token(TokenKind::Api, Role::Viewer).await;
        let body = format!("token={api}&from={}", from.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D"));
        let answer = send(site.at, "POST", "/login", &form, body.as_bytes()).await;
        assert_eq!((answer.status, answer.header("location")), (303, goal), "{from}");
        let login = site.token(TokenKind::Login, Role::Viewer).await;
        let link = format!("/login?token={login}&from={}", from.replace('?', "%3F").replace('\\', "%5C"));
        assert_eq!(send(site.at, "GET", &link, &[], b"").await.header("location"), goal, "{from}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_login_token_or_its_link_may_be_pasted_into_the_form_once() {
    let site = Site::start(0).await;
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    for shape in ["TOKEN", "http%3A%2F%2F127.0.0.1%2Flogin%3Ftoken%3DTOKEN"] {
        let body = format!("token={}", shape.replace("TOKEN", &site.token(TokenKind::Login, Role::Viewer).await));
        let first = send(site.at, "POST", "/login", &form, body.as_bytes()).await;
        assert_eq!((first.status, first.header("location")), (303, "/"), "{shape}");
        assert_eq!(send(site.at, "GET", "/hosts", &[("cookie", &first.cookie())], b"").await.status, 200);
        let second = send(site.at, "POST", "/login", &form, body.as_bytes()).await;
        assert!(second.status == 401 && second.body.contains("has been used"), "{second:?}");
    }
    site.stop().await;
}

#[tokio::test]
async fn an_api_token_opens_the_console_through_the_form() {
    let site = Site::start(0).await;
    let api = site.token(TokenKind::Api, Role::Viewer).await;
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    let answer = send(site.at, "POST", "/login", &form, format!("token={api}").as_bytes()).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    assert_eq!(send(site.at, "GET", "/hosts", &[("cookie", &answer.cookie())], b"").await.status, 200);
    assert_eq!(send(site.at, "POST", "/login", &form, b"token=tl_api_wrong").await.status, 401);
    assert_eq!(send(site.at, "POST", "/login", &form[..1], format!("token={api}").as_bytes()).await.status, 403);
    site.stop().await;
}

#[tokio::test]
async fn tokens_are_shown_once_and_end_when_revoked() {
    let site = Site::start(0).await;
    let admin = site.bearer(Role::Admin).await;
    let made = site.post("/api/v1/tokens", &admin, &json!({"kind": "api", "role": "viewer", "name": "ci"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    assert_eq!(site.get("/api/v1/summary", &bearer).await.status, 200);
    let listed = site.get("/api/v1/tokens", &admin).await;
    assert!(!listed.body.contains("tl_api_"), "{}", listed.body);
    let path = format!("/api/v1/tokens/{}", made["id"]);
    assert_eq!(send(site.at, "DELETE", &path, &[("authorization", &admin)], b"").await.status, 204);
    assert!(problem(&site.get("/api/v1/summary", &bearer).await, 401)["detail"].as_str().unwrap().contains("revoked"));
    site.stop().await;
}
