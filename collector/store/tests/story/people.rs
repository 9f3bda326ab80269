//! Tokens, hosts, certificates, and what people do.

use trueline_drift::{Epoch, HostId, TenantId, Time};
use trueline_store::{
    Enrolled, KeyDigest, NewAction, NewCertificate, NewHost, NewToken, Role, Spent, Standing, Store, TokenDigest, TokenKind,
};
use uuid::Uuid;

use crate::world::{World, at, facts, main, page};

fn token(digest: u8, uses: Option<u32>) -> NewToken {
    NewToken {
        tenant: main(),
        kind: TokenKind::Join,
        role: Role::Viewer,
        name: format!("token {digest}"),
        digest: TokenDigest([digest; 32]),
        created_at: at(0),
        expires_at: Some(at(1000)),
        uses,
    }
}

pub async fn a_token_with_one_use_is_spent_once(world: &World) {
    world.store.add_token(token(1, Some(1))).await.unwrap();
    let other = world.another().await;
    let mut tries = Vec::new();
    for number in 0..20 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        tries.push(tokio::spawn(async move { store.spend_token(&TokenDigest([1; 32]), TokenKind::Join, at(5)).await.unwrap() }));
    }
    let mut spent = 0;
    for attempt in tries {
        match attempt.await.unwrap() {
            Spent::Token(token) => {
                assert_eq!(token.uses_left, Some(0));
                spent += 1;
            }
            refused => assert_eq!(refused, Spent::Refused(Standing::UsedUp)),
        }
    }
    assert_eq!(spent, 1);
}

pub async fn tokens_expire_are_revoked_and_are_told_apart(world: &World) {
    let store = &world.store;
    let unlimited = store.add_token(token(1, None)).await.unwrap();
    let spend = async |digest, kind, seconds| store.spend_token(&TokenDigest([digest; 32]), kind, at(seconds)).await.unwrap();
    assert_eq!(spend(1, TokenKind::Join, 5).await, Spent::Token(unlimited.clone()));
    assert_eq!(spend(1, TokenKind::Api, 5).await, Spent::Unknown);
    assert_eq!(spend(9, TokenKind::Join, 5).await, Spent::Unknown);
    assert_eq!(spend(1, TokenKind::Join, 1000).await, Spent::Refused(Standing::Expired));
    assert!(!store.revoke_token(&TenantId("other".into()), unlimited.id, at(6)).await.unwrap());
    assert!(store.revoke_token(&main(), unlimited.id, at(6)).await.unwrap());
    assert!(!store.revoke_token(&main(), unlimited.id, at(7)).await.unwrap());
    assert_eq!(spend(1, TokenKind::Join, 8).await, Spent::Refused(Standing::Revoked));
    let found = store.token_by_digest(&TokenDigest([1; 32])).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, Some(at(6)));
    assert!(store.add_token(token(1, None)).await.is_err(), "a digest names one token");
}

fn new_host(token: u8, key: u8, enrolled_at: Time) -> NewHost {
    NewHost { id: HostId(Uuid::now_v7()), facts: facts("web"), enrolled_at, token: TokenDigest([token; 32]), key: KeyDigest([key; 32]) }
}

async fn enrolled(store: &dyn Store, new: NewHost) -> (HostId, Option<u32>) {
    match store.enrol_host(new).await.unwrap() {
        Enrolled::Host { id, token } => (id, token.uses_left),
        refused => panic!("{refused:?}"),
    }
}

pub async fn a_key_that_comes_again_with_its_token_is_one_host_until_it_connects(world: &World) {
    let store = &*world.store;
    store.add_token(token(1, Some(2))).await.unwrap();
    let (web, left) = enrolled(store, new_host(1, 1, at(5))).await;
    assert_eq!(left, Some(1));
    assert_eq!(enrolled(store, new_host(1, 1, at(6))).await, (web, Some(1)));
    let (db, left) = enrolled(store, new_host(1, 2, at(6))).await;
    assert!(db != web && left == Some(0), "another key is another host");
    assert_eq!(enrolled(store, new_host(1, 1, at(7))).await, (web, Some(0)), "a token that is used up lets in whom it let in");
    assert_eq!(store.enrol_host(new_host(1, 3, at(7))).await.unwrap(), Enrolled::Refused(Standing::UsedUp));
    assert_eq!(store.hosts(&main(), page(10)).await.unwrap().items.len(), 2);

    // Of another token it is another enrolment.
    store.add_token(token(2, Some(1))).await.unwrap();
    let (again, _) = enrolled(store, new_host(2, 1, at(8))).await;
    assert!(again != web);
    assert_eq!(store.enrol_host(new_host(9, 1, at(8))).await.unwrap(), Enrolled::Unknown);

    // Its answer has come: from here on the key has no claim to the host.
    store.host_connected(web, &facts("web"), "0.1.0", Epoch(1), at(9)).await.unwrap();
    assert_eq!(store.enrol_host(new_host(1, 1, at(10))).await.unwrap(), Enrolled::Refused(Standing::UsedUp));
    assert!(store.revoke_host(&main(), db, at(10)).await.unwrap());
    assert_eq!(store.enrol_host(new_host(1, 2, at(11))).await.unwrap(), Enrolled::Refused(Standing::UsedUp), "a revoked one neither");
    assert_eq!(enrolled(store, new_host(2, 1, at(11))).await.0, again);
    assert_eq!(store.enrol_host(new_host(2, 1, at(1000))).await.unwrap(), Enrolled::Refused(Standing::Expired));
}

pub async fn of_many_that_enrol_at_once_as_many_are_let_in_as_there_are_uses(world: &World) {
    world.store.add_token(token(1, Some(3))).await.unwrap();
    let other = world.another().await;
    let mut tries = Vec::new();
    // Each of five keys four times.
    for number in 0..20_u8 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        tries.push(tokio::spawn(async move { (number / 4, store.enrol_host(new_host(1, number / 4, at(5))).await.unwrap()) }));
    }
    let mut hosts = std::collections::BTreeMap::new();
    for attempt in tries {
        match attempt.await.unwrap() {
            (key, Enrolled::Host { id, .. }) => assert_eq!(*hosts.entry(key).or_insert(id), id, "one key, one host"),
            (_, refused) => assert_eq!(refused, Enrolled::Refused(Standing::UsedUp)),
        }
    }
    assert_eq!(hosts.len(), 3);
    assert_eq!(world.store.hosts(&main(), page(10)).await.unwrap().items.len(), 3);
}

pub async fn certificates_speak_for_their_host_until_it_is_revoked(world: &World) {
    let store = &world.store;
    let host = world.host("web-1").await;
    let certificate =
        |serial: &str, expires| NewCertificate { serial: serial.into(), host: host.id, issued_at: at(0), expires_at: at(expires) };
    store.add_certificate(certificate("aa", 100)).await.unwrap();
    store.add_certificate(certificate("bb", 200)).await.unwrap();
    assert_eq!(store.credential("zz").await.unwrap(), None);
    let credential = store.credential("aa").await.unwrap().unwrap();
    assert_eq!((credential.host, credential.tenant, credential.revoked_at), (host.id, main(), None));
    let shown = store.host(&main(), &host.id.to_string()).await.unwrap().unwrap();
    assert_eq!(shown.certificate_expires_at, Some(at(200)));

    assert!(!store.revoke_host(&TenantId("other".into()), host.id, at(50)).await.unwrap());
    assert!(store.revoke_host(&main(), host.id, at(50)).await.unwrap());
    assert!(!store.revoke_host(&main(), host.id, at(51)).await.unwrap());
    for serial in ["aa", "bb"] {
        assert_eq!(store.credential(serial).await.unwrap().unwrap().revoked_at, Some(at(50)));
    }
    assert_eq!(store.hosts_revoked_since(at(50)).await.unwrap(), [host.id]);
    assert_eq!(store.hosts_revoked_since(at(51)).await.unwrap(), []);
}

pub async fn a_name_finds_a_host_unless_it_is_ambiguous(world: &World) {
    let store = &world.store;
    let first = world.host("web").await;
    let find = async |name: &str| store.host(&main(), name).await.unwrap().map(|host| host.id);
    assert_eq!(find("web").await, Some(first.id));
    let second = world.host("web").await;
    assert_eq!(find("web").await, None);
    assert_eq!(find(&second.id.to_string()).await, Some(second.id));
    store.revoke_host(&main(), first.id, at(5)).await.unwrap();
    assert_eq!(find("web").await, Some(second.id), "a revoked namesake does not count");
    store.host_connected(second.id, &facts("db"), "0.2.0", Epoch(1), at(6)).await.unwrap();
    assert_eq!(find("db").await, Some(second.id), "a host's name is what it says now");
}

pub async fn the_first_value_kept_wins(world: &World) {
    let other = world.another().await;
    let (one, two) = tokio::join!(world.store.keep("ca", b"one"), other.keep("ca", b"two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(world.store.kept("ca").await.unwrap(), Some(one));
    assert_eq!(world.store.kept("other").await.unwrap(), None);
}

pub async fn actions_are_listed_to_their_tenant(world: &World) {
    for (tenant, subject) in [("main", "a"), ("other", "b"), ("main", "c")] {
        let action = NewAction {
            tenant: TenantId(tenant.into()),
            at: at(1),
            actor: "token:ops".into(),
            action: "host.revoke".into(),
            subject: subject.into(),
            detail: None,
        };
        world.store.note_action(action).await.unwrap();
    }
    let actions = world.store.actions(&main(), page(10)).await.unwrap().items;
    assert_eq!(actions.iter().map(|action| action.subject.as_str()).collect::<Vec<_>>(), ["c", "a"]);
}

pub async fn names_with_any_character_are_kept(world: &World) {
    let names = ["'; DROP TABLE tokens; --", "\u{1f980} crab", "a\u{0}b", "$1 {rows} ?"];
    for (number, name) in (10..).zip(names) {
        world.store.add_token(NewToken { name: name.to_owned(), ..token(number, None) }).await.unwrap();
    }
    let tokens = world.store.tokens(&main(), page(10)).await.unwrap().items;
    assert_eq!(tokens.len(), names.len());
    assert_eq!(tokens[0].name, "$1 {rows} ?");
    assert_eq!(tokens[2].name, "\u{1f980} crab");
}
