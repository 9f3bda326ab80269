use rcgen::{BasicConstraints, DnType, IsCa};

use super::*;

const LINK: &str = "collector:9440";

fn host(byte: u8) -> HostId {
    format!("{byte:02x}000000-0000-7000-8000-000000000000").parse().unwrap()
}

/// A certificate for the request's key that names `name`.
fn certificate(request: &KeyRequest, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.self_signed(&request.key).unwrap().der().to_vec()
}

fn ca() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn enrolled(data_dir: &Path, host: HostId) -> Identity {
    let request = KeyRequest::new().unwrap();
    Identity::keep(data_dir, &request, host, LINK, &[certificate(&request, &host.to_string())], &ca()).unwrap()
}

#[test]
fn a_renewed_certificate_counts_in_memory_until_it_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let identity = enrolled(directory.path(), host(1));
    let request = KeyRequest::new().unwrap();
    let renewed = identity.renew(&request, &[certificate(&request, &host(1).to_string())]).unwrap();
    assert!(!renewed.is_saved() && renewed.chain != identity.chain);
    renewed.client_config().unwrap();
    assert_eq!(Identity::load(directory.path()).unwrap().chain, identity.chain);

    // A folder in its place: the file cannot be written, as on a full disk.
    let obstacle = directory.path().join("identity/host.new");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(matches!(renewed.save(), Err(IdentityError::Io { operation: "write", .. })));
    assert_eq!(Identity::load(directory.path()).unwrap().chain, identity.chain);
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(renewed.save().unwrap().is_saved());
    assert_eq!(Identity::load(directory.path()).unwrap().chain, renewed.chain);
}

#[test]
fn a_renewal_that_cannot_be_used_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let identity = enrolled(directory.path(), host(1));
    let (request, other) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
    let of_another_host = certificate(&request, &host(2).to_string());
    let of_another_key = certificate(&other, &host(1).to_string());
    for chain in [vec![], vec![of_another_host], vec![of_another_key], vec![vec![0x30, 0x00]]] {
        assert!(matches!(identity.renew(&request, &chain), Err(IdentityError::Answer { .. })));
    }
}

#[test]
fn a_certificate_of_another_host_is_damage() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrolled(directory.path(), host(1));
    enrolled(other.path(), host(2));
    std::fs::copy(other.path().join("identity/host.pem"), directory.path().join("identity/host.pem")).unwrap();
    assert!(matches!(Identity::load(directory.path()), Err(IdentityError::Damaged { .. })));
}

#[test]
fn enrolling_over_an_older_identity_leaves_one_of_the_two_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let old = enrolled(directory.path(), host(1));
    let obstacle = directory.path().join("identity/membership.new");
    std::fs::create_dir(&obstacle).unwrap();
    let request = KeyRequest::new().unwrap();
    let chain = [certificate(&request, &host(2).to_string())];
    assert!(Identity::keep(directory.path(), &request, host(2), LINK, &chain, &ca()).is_err());
    let found = Identity::load(directory.path()).unwrap();
    assert_eq!((found.host, found.chain, found.ca), (host(1), old.chain, old.ca), "nothing of the new one is in place");
    std::fs::remove_dir(&obstacle).unwrap();

    // As a crash leaves it once the old one began to go.
    std::fs::remove_file(directory.path().join("identity/membership.json")).unwrap();
    assert!(matches!(Identity::load(directory.path()), Err(IdentityError::NotEnrolled { .. })));
    assert_eq!(enrolled(directory.path(), host(2)).host, host(2));
}

#[test]
fn a_certificate_for_another_host_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let request = KeyRequest::new().unwrap();
    let chain = [certificate(&request, "db1")];
    let refused = Identity::keep(directory.path(), &request, host(1), LINK, &chain, &ca());
    assert!(matches!(refused, Err(IdentityError::Answer { .. })));
    assert!(!directory.path().join("identity").exists());
}

#[test]
fn the_key_of_an_enrolment_stays_until_its_certificate_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let der = |request: &KeyRequest| request.key.serialize_der();
    let first = KeyRequest::pending(directory.path()).unwrap();
    let path = directory.path().join("identity").join(PENDING);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    let second = KeyRequest::pending(directory.path()).unwrap();
    assert_eq!(der(&first), der(&second));

    let left_behind = std::fs::read(&path).unwrap();
    let chain = [certificate(&second, &host(1).to_string())];
    Identity::keep(directory.path(), &second, host(1), LINK, &chain, &ca()).unwrap();
    assert!(!path.exists());
    std::fs::write(&path, left_behind).unwrap();
    let third = KeyRequest::pending(directory.path()).unwrap();
    assert_ne!(der(&third), der(&first), "another enrolment has a key of its own");
    assert_eq!(der(&third), der(&KeyRequest::pending(directory.path()).unwrap()), "an older identity beside it changes nothing");
    std::fs::write(&path, "-----BEGIN").unwrap();
    assert_ne!(der(&KeyRequest::pending(directory.path()).unwrap()), der(&third));
}

#[test]
fn where_a_key_cannot_be_kept_nobody_is_asked_with_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("identity/pending.new")).unwrap();
    assert!(matches!(KeyRequest::pending(directory.path()), Err(IdentityError::Io { operation: "write", .. })));
}
