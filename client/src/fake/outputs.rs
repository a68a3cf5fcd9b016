//! What tasks of a scripted cluster left.

use bytes::Bytes;
use muster_proto::v1;
use tonic::{Response, Status};

use super::{Answers, LINK, Service, answers, broken_off};
use crate::checksum::{Checksum, LINK_BITS};

impl Service {
    pub(super) async fn log(&self, request: v1::ReadTaskLogRequest) -> Result<Response<Answers<v1::LogChunk>>, Status> {
        self.begin("read_log").await?;
        let mut state = self.cluster.state();
        let stderr = request.stream() == v1::Stream::Stderr;
        let key = (request.stage.clone(), request.index, request.attempt, stderr);
        let Some(log) = state.logs.get(&key).cloned() else {
            return Err(Status::not_found(format!("{}/{} has no attempt {}", key.0, key.1, key.2)));
        };
        let from = usize::try_from(request.offset).unwrap_or(usize::MAX).min(log.len());
        let (stop, breaks) = match state.break_log_after.take() {
            Some(after) => ((from + after).min(log.len()), true),
            None => (log.len(), false),
        };
        // Small chunks, and the first one begins before the offset: a client must cope with both.
        let early = from.saturating_sub(2);
        let mut chunks: Vec<Result<v1::LogChunk, Status>> = Vec::new();
        for (place, piece) in log[early..stop].chunks(5).enumerate() {
            let offset = (early + place * 5) as u64;
            let data = Bytes::copy_from_slice(piece);
            chunks.push(Ok(v1::LogChunk { stream: request.stream, offset, data, truncated: false }));
        }
        if breaks {
            chunks.push(Err(broken_off()));
        }
        Ok(answers(chunks))
    }

    pub(super) async fn outputs(
        &self,
        request: v1::ListOutputsRequest,
    ) -> Result<Response<v1::ListOutputsResponse>, Status> {
        self.begin("list_outputs").await?;
        let stage = request.stage;
        let state = self.cluster.state();
        let of_stage = state.outputs.iter().filter(|((name, _), _)| stage.is_empty() || stage == *name);
        let outputs = of_stage
            .map(|((stage, index), files)| {
                let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
                let files = u32::try_from(files.len()).unwrap_or(u32::MAX);
                let output = Some(v1::Output { bytes, checksum: 0, files });
                v1::OutputView { stage: stage.clone(), index: *index, attempt: 1, output, executor: "e".to_owned() }
            })
            .collect();
        Ok(Response::new(v1::ListOutputsResponse { outputs }))
    }

    pub(super) async fn output(
        &self,
        request: v1::ReadOutputRequest,
    ) -> Result<Response<Answers<v1::OutputChunk>>, Status> {
        self.begin("read_output").await?;
        let mut state = self.cluster.state();
        let Some(files) = state.outputs.get(&(request.stage.clone(), request.index)).cloned() else {
            return Err(Status::not_found(format!("{}/{} has no output", request.stage, request.index)));
        };
        let chunk = |part| Ok(v1::OutputChunk { part: Some(part) });
        let breaks = state.break_output_after.take();
        let mut chunks = Vec::new();
        let mut checksum = Checksum::default();
        for (path, content) in files.iter().take(breaks.unwrap_or(usize::MAX)) {
            let (path, mode) = path.strip_prefix(LINK).map_or((path.as_str(), 0), |path| (path, LINK_BITS));
            checksum.entry(path, mode, content.len() as u64);
            checksum.data(content);
            let start = v1::FileStart { path: path.to_owned(), bytes: content.len() as u64, mode };
            chunks.push(chunk(v1::output_chunk::Part::File(start)));
            for piece in content.chunks(7) {
                chunks.push(chunk(v1::output_chunk::Part::Data(Bytes::copy_from_slice(piece))));
            }
        }
        chunks.push(match breaks {
            Some(_) => Err(broken_off()),
            None => chunk(v1::output_chunk::Part::End(v1::OutputEnd {
                checksum: checksum.sum() ^ u64::from(state.damage_outputs),
            })),
        });
        Ok(answers(chunks))
    }
}
