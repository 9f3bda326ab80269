//! What an agent says first, checked: a Hello that breaks the contract ends its stream with the reason.

use tonic::Status;
use trueline_drift::{Epoch, Facts};
use trueline_proto::{PROTOCOL, RunId, v1};

use super::end::{End, refused};
use super::status::short;
use crate::hub::Life;
use crate::tls::Refusal;

#[derive(Debug)]
pub struct Greeting {
    pub facts: Facts,
    /// Of the agent, where it tells.
    pub life: Option<Life>,
    pub epoch: Epoch,
    pub version: String,
    pub policy_version: u64,
}

impl Greeting {
    pub fn check(hello: v1::Hello) -> Result<Self, End> {
        if hello.protocol != PROTOCOL {
            let reason = format!("the agent speaks protocol {}, this collector speaks {PROTOCOL}", hello.protocol);
            return Err(refused(Refusal::Protocol, Status::failed_precondition(reason)));
        }
        let invalid = |reason: String| refused(Refusal::MessageInvalid, Status::invalid_argument(reason));
        let facts = hello.facts.ok_or_else(|| invalid("Hello has no facts".to_owned()))?;
        let facts = Facts::try_from(facts).map_err(|error| invalid(error.to_string()))?;
        let run = hello.run_id.map(|bytes| RunId::from_wire(&bytes)).transpose().map_err(|error| invalid(error.to_string()))?;
        if i64::try_from(hello.epoch).is_err() {
            // Both databases count to 2^63 - 1.
            return Err(invalid(format!("Hello has the epoch {}; allowed are up to {}", hello.epoch, i64::MAX)));
        }
        Ok(Self {
            life: Life::told(run, facts.boot_id.as_deref()),
            facts,
            epoch: Epoch(hello.epoch),
            version: short(&hello.agent_version).to_string(),
            policy_version: hello.policy_version,
        })
    }
}
