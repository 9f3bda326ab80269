//! The agent within this process: enrolled like any other, through the collector's own door.

use serde_json::json;
use trueline_agent::config::Config;
use trueline_agent::enrol::{EnrolRequest, enrol};
use trueline_agent::identity::{Identity, IdentityError};
use trueline_agent::run::{RunningAgent, start};

use super::collector::Collector;
use super::folder::{Folder, WatchList};
use crate::age::now;
use crate::failure::Failure;

/// Who this host is to the collector of the folder; `None` before the first enrolment, and when the
/// certificate ran out while nothing ran.
pub fn identity(folder: &Folder) -> Result<Option<Identity>, Failure> {
    match Identity::load(&folder.agent_path()) {
        Ok(identity) if identity.valid_until > now() => Ok(Some(identity)),
        Ok(_) | Err(IdentityError::NotEnrolled { .. }) => Ok(None),
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}

/// Enrols with a join token of one use, made for it.
pub async fn join(folder: &Folder, collector: &Collector) -> Result<Identity, Failure> {
    let wish = json!({ "kind": "join", "name": "quickstart", "expires_in_seconds": 300, "uses": 1 });
    let answer = collector.api.post(&["tokens"], &wish).await?;
    let token = answer["token"].as_str().ok_or_else(|| Failure::Refused("the collector made no join token".to_owned()))?;
    let addresses = collector.addresses();
    let request = EnrolRequest {
        collector: addresses.enrolment.to_string(),
        token: token.to_owned(),
        ca_sha256: collector.ca_sha256()?,
        data_dir: folder.agent_path(),
        link: Some(addresses.agents.to_string()),
    };
    Box::pin(enrol(request)).await.map_err(|error| Failure::Refused(format!("the agent cannot enrol: {error}")))
}

/// Opens what is on disk and starts the agent's threads.
pub fn watch(folder: &Folder, list: &WatchList) -> Result<RunningAgent, Failure> {
    let config = Config { data_dir: folder.agent_path(), watch: list.policy.clone(), ..Config::default() };
    tokio::task::block_in_place(|| start(config)).map_err(|error| Failure::Refused(format!("the agent cannot start: {error}")))
}
