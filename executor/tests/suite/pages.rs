//! A scheduler's answers in the smallest pages there can be: one place each.

use muster_proto::v1;

pub(crate) fn page(upstreams: &[v1::UpstreamOutputs], from: Option<v1::InputsPage>) -> v1::GetStageInputsResponse {
    let from = from.unwrap_or_default();
    let Some(upstream) = upstreams.get(from.upstream as usize) else {
        return v1::GetStageInputsResponse::default();
    };
    let mut page = upstream.clone();
    page.locations = upstream.locations.iter().skip(from.index as usize).take(1).cloned().collect();
    let index = from.index + 1;
    let next = if (index as usize) < upstream.locations.len() {
        Some(v1::InputsPage { index, ..from })
    } else {
        let upstream = from.upstream + 1;
        ((upstream as usize) < upstreams.len()).then_some(v1::InputsPage { upstream, index: 0 })
    };
    v1::GetStageInputsResponse { upstreams: vec![page], next }
}
