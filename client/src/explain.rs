//! Why tasks are not running.

use muster_proto::v1;

use crate::call::Repeat;
use crate::client::jobs;
use crate::{Client, Error};

impl Client {
    /// Why tasks are not running, and what would make them run: one page of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn explain_page(&self, request: v1::ExplainRequest) -> Result<v1::Explanation, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(jobs(channel).explain(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The same, page by page, up to `limit` stages (of a job) or tasks (of a stage). The token in the answer says whether
    /// there are more.
    ///
    /// # Errors
    /// As [`Client::explain_page`].
    pub async fn explain(&self, request: v1::ExplainRequest, limit: usize) -> Result<v1::Explanation, Error> {
        let whole_job = request.stage.is_empty();
        let told = |explanation: &v1::Explanation| {
            if whole_job { explanation.stages.len() } else { explanation.tasks.len() }
        };
        let room = |told: usize| u32::try_from(limit.saturating_sub(told)).unwrap_or(u32::MAX).max(1);
        let mut all = self.explain_page(v1::ExplainRequest { limit: room(0), ..request.clone() }).await?;
        while told(&all) < limit && !all.next_page_token.is_empty() {
            let page_token = std::mem::take(&mut all.next_page_token);
            let next = v1::ExplainRequest { limit: room(told(&all)), page_token, ..request.clone() };
            let page = self.explain_page(next).await?;
            if whole_job {
                all.stages.extend(page.stages);
            }
            all.tasks.extend(page.tasks);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }
}
