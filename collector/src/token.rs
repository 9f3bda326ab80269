//! Tokens: made here, shown once, kept only as a digest.

use rand::RngExt;
use sha2::{Digest, Sha256};
use trueline_store::{TokenDigest, TokenKind};

/// A token's text: what it is for, and 160 random bits. Its Debug shows nothing.
#[derive(Clone)]
pub struct TokenText(String);

impl TokenText {
    /// `tl_join_…`: the prefix lets people and secret scanners know it.
    pub fn random(kind: TokenKind) -> Self {
        let prefix = match kind {
            TokenKind::Join => "tl_join_",
            TokenKind::Api => "tl_api_",
            TokenKind::Login => "tl_login_",
            TokenKind::Session => "tl_session_",
        };
        let secret: [u8; 20] = rand::rng().random();
        Self(format!("{prefix}{}", hex::encode(secret)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> TokenDigest {
        digest(&self.0)
    }
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// How a token given by somebody is looked up. A random token needs no slow hash.
pub fn digest(text: &str) -> TokenDigest {
    TokenDigest(Sha256::digest(text.as_bytes()).into())
}
