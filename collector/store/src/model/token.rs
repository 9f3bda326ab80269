//! Tokens: of people, programs, hosts that join, and browsers.

use serde::{Deserialize, Serialize};
use trueline_drift::{TenantId, Time};

/// SHA-256 of a token: the token itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Lets hosts enrol.
    Join,
    /// Speaks to the REST API.
    Api,
    /// Opens the console once: exchanged for a session.
    Login,
    /// A browser's session.
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

#[derive(Debug, Clone)]
pub struct NewToken {
    pub tenant: TenantId,
    pub kind: TokenKind,
    pub role: Role,
    pub name: String,
    pub digest: TokenDigest,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub uses: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    pub id: i64,
    pub tenant: TenantId,
    pub kind: TokenKind,
    pub role: Role,
    pub name: String,
    pub created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

/// Whether a token may be used, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Expired,
    UsedUp,
    Revoked,
}

impl Token {
    pub fn standing(&self, now: Time) -> Standing {
        if self.revoked_at.is_some() {
            Standing::Revoked
        } else if self.expires_at.is_some_and(|expiry| expiry <= now) {
            Standing::Expired
        } else if self.uses_left == Some(0) {
            Standing::UsedUp
        } else {
            Standing::Good
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spent {
    Token(Token),
    Unknown,
    Refused(Standing),
}
