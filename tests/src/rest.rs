//! A client of the collector's REST interface: one kept-alive connection, JSON in and out. Every answer is awaited for so
//! long and no longer: nothing here follows a stream.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// Rows asked for in one page.
const PAGE: &str = "500";
/// For an answer with its whole body: far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Rest {
    client: Client,
    base: String,
    token: String,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Rest {
    /// `base` as in `http://127.0.0.1:8089`.
    pub fn new(base: &str, token: &str) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).tcp_nodelay(true).build().context("making an HTTP client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    /// Over HTTPS, trusting this certificate (PEM) alone.
    pub fn trusting(base: &str, token: &str, certificate: &[u8]) -> anyhow::Result<Self> {
        let trusted = reqwest::Certificate::from_pem(certificate).context("reading the server's certificate")?;
        let client =
            Client::builder().no_proxy().timeout(PATIENCE).tcp_nodelay(true).tls_certs_only([trusted]).redirect(Policy::none()).build();
        Ok(Self { client: client.context("making an HTTPS client")?, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    /// The answer to a GET with these headers in the token's place; redirects are not followed over HTTPS.
    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let mut request = self.client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.with_context(|| format!("asking {}{path}", self.base))
    }

    /// A GET over plain HTTP, whatever is spoken there.
    pub async fn plain(&self, path: &str) -> anyhow::Result<String> {
        let base = self.base.replacen("https://", "http://", 1);
        let answer = self.client.get(format!("{base}{path}")).send().await?;
        Ok(format!("{}: {}", answer.status(), answer.text().await?))
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<(StatusCode, String)> {
        let response = request.bearer_auth(&self.token).send().await.with_context(|| format!("asking {}", self.base))?;
        let status = response.status();
        Ok((status, response.text().await?))
    }

    /// Status and body, whatever they are.
    pub async fn status(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let (status, body) = self.answer(self.client.get(format!("{}{path}", self.base))).await?;
        Ok((status.as_u16(), body))
    }

    /// `path` beneath `/api/v1`; an answer that is no success is an error with its problem document.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}/api/v1{path}", self.base)).query(query);
        let (status, body) = self.answer(request).await?;
        if !status.is_success() {
            bail!("GET {path} {query:?}: {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path} answered no JSON: {body}"))
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let (status, answer) = self.answer(self.client.post(format!("{}/api/v1{path}", self.base)).json(body)).await?;
        if !status.is_success() {
            bail!("POST {path} {body}: {status}: {answer}");
        }
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&answer)?) }
    }

    /// Every row of a listing, page after page.
    pub async fn all(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        self.each(path, query, |row| rows.push(row.take())).await?;
        Ok(rows)
    }

    /// As [`Self::all`], without holding more than a page of them.
    pub async fn each(&self, path: &str, query: &[(&str, &str)], mut row: impl FnMut(&mut Value)) -> anyhow::Result<()> {
        let mut cursor: Option<String> = None;
        loop {
            let mut asked = query.to_vec();
            asked.push(("limit", PAGE));
            if let Some(cursor) = &cursor {
                asked.push(("after", cursor));
            }
            let mut page = self.get(path, &asked).await?;
            let items = page["items"].as_array_mut().with_context(|| format!("{path} has no items"))?;
            items.iter_mut().for_each(&mut row);
            match page["next"].as_str() {
                Some(next) => {
                    if cursor.as_deref() == Some(next) {
                        bail!("{path}: the page after {next} leads to itself");
                    }
                    cursor = Some(next.to_owned());
                }
                None => return Ok(()),
            }
        }
    }

    /// The sum of a metric over all its labels; 0 where it was never counted.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (status, body) = self.status("/metrics").await?;
        if status != 200 {
            bail!("GET /metrics: {status}: {body}");
        }
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        Ok(body.lines().filter(is_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}
