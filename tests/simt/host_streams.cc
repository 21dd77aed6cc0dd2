// Streams, events and graphs of host_runtime.h.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "tests/simt/host_runtime.h"
#include "tests/simt/simt.h"

using Work = std::function<void()>;

namespace {

/// A place in a stream that others may wait for.
struct Mark {
  cudaStream_t stream;
  bool reached = false;
};

/// What several streams do together.
struct Meeting {
  std::vector<cudaStream_t> streams;
  Work work;
  std::vector<cudaStream_t> arrived = {};
  bool done = false;
};

/// What a stream was asked while it was captured.
struct Step {
  enum Kind { kWork, kRecord, kWait, kMeet } kind;
  std::size_t stream;  // among the recording's
  int number;          // of the mark, of the meeting
  Work work;
};

struct Recording {
  std::vector<cudaStream_t> streams;  // the first one began
  std::vector<int> devices;
  std::vector<Step> steps;
  int marks = 0, meetings = 0;

  std::size_t Number(cudaStream_t stream) const {
    return std::size_t(std::find(streams.begin(), streams.end(), stream) - streams.begin());
  }
  bool Joined() const;
};

}  // namespace

struct CUstream_st {
  int device = 0;
  std::deque<Work> queue;
  std::shared_ptr<Recording> recording;  // null: nothing is captured
};
struct CUevent_st {
  std::shared_ptr<Mark> mark;
  std::shared_ptr<Recording> recording;  // of the last record, with its number
  int number = 0;
};
struct CUgraph_st {
  std::shared_ptr<const Recording> recording;
};
struct CUgraphExec_st {
  std::shared_ptr<const Recording> recording;
};

namespace {

/// Whether all that was captured must have run when the first stream has.
bool Recording::Joined() const {
  std::vector<bool> needed(steps.size());
  // From the end: a step is needed by a later needed one of its stream, by who waits for its mark
  // or meets it, or as the first stream's.
  for (bool grew = true; grew;) {
    grew = false;
    std::vector<bool> later(streams.size());
    for (std::size_t i = steps.size(); i-- > 0;) {
      const Step& s = steps[i];
      bool need = needed[i] || s.stream == 0 || later[s.stream];
      for (std::size_t j = 0; j < steps.size() && !need; ++j) {
        const bool wanted = (s.kind == Step::kRecord && steps[j].kind == Step::kWait) ||
                            (s.kind == Step::kMeet && steps[j].kind == Step::kMeet);
        need = wanted && needed[j] && steps[j].number == s.number;
      }
      if (need && !needed[i]) needed[i] = grew = true;
      later[s.stream] = later[s.stream] || need;
    }
  }
  return std::find(needed.begin(), needed.end(), false) == needed.end();
}

void RunOne(cudaStream_t stream) {
  const Work work = std::move(stream->queue.front());
  stream->queue.pop_front();
  simt::OpenMemoryOf(stream->device);
  work();
}

void RunUpTo(const std::shared_ptr<Mark>& mark) {
  while (!mark->reached) {
    if (mark->stream->queue.empty()) throw simt::Fault("an event that its stream never reaches");
    RunOne(mark->stream);
  }
}

void Arrive(const std::shared_ptr<Meeting>& meeting, cudaStream_t stream) {
  meeting->arrived.push_back(stream);
  for (cudaStream_t other : meeting->streams) {
    while (std::find(meeting->arrived.begin(), meeting->arrived.end(), other) ==
           meeting->arrived.end()) {
      if (other->queue.empty()) throw simt::Fault("a collective that a stream never reaches");
      RunOne(other);
    }
  }
  if (meeting->done) return;
  meeting->done = true;
  simt::OpenMemoryOf(-1);
  meeting->work();
  simt::OpenMemoryOf(stream->device);
}

cudaError_t Drain(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  if (stream->recording) return cudaErrorInvalidValue;  // as a device: no waiting while capturing
  while (!stream->queue.empty()) RunOne(stream);
  simt::OpenMemoryOf(-1);
  return cudaSuccess;
}

void Push(cudaStream_t stream, Step::Kind kind, int number, Work work) {
  Recording& recording = *stream->recording;
  recording.steps.push_back({kind, recording.Number(stream), number, std::move(work)});
}

void Replay(const Recording& recording) {
  std::vector<CUstream_st> streams(recording.streams.size());
  for (std::size_t i = 0; i < streams.size(); ++i) streams[i].device = recording.devices[i];
  std::map<int, std::shared_ptr<Mark>> marks;
  std::map<int, std::shared_ptr<Meeting>> meetings;
  for (const Step& step : recording.steps) {
    const cudaStream_t stream = &streams[step.stream];
    if (step.kind == Step::kWork) {
      stream->queue.push_back(step.work);
    } else if (step.kind == Step::kRecord) {
      const auto mark = marks[step.number] = std::make_shared<Mark>(Mark{stream});
      stream->queue.push_back([mark] { mark->reached = true; });
    } else if (step.kind == Step::kWait) {
      stream->queue.push_back([mark = marks.at(step.number)] { RunUpTo(mark); });
    } else {
      std::shared_ptr<Meeting>& meeting = meetings[step.number];
      if (!meeting) meeting = std::make_shared<Meeting>(Meeting{{}, step.work});
      meeting->streams.push_back(stream);
      stream->queue.push_back([meeting, stream] { Arrive(meeting, stream); });
    }
  }
  while (!streams[0].queue.empty()) RunOne(&streams[0]);
}

}  // namespace

namespace simt {

void Enqueue(cudaStream_t stream, Work work) {
  if (stream == nullptr) return work();
  if (stream->recording) return Push(stream, Step::kWork, 0, std::move(work));
  stream->queue.push_back(std::move(work));
}

void EnqueueTogether(const std::vector<cudaStream_t>& streams, Work work) {
  const std::shared_ptr<Recording> recording = streams[0]->recording;
  const auto meeting = std::make_shared<Meeting>(Meeting{streams, work});
  const int number = recording ? recording->meetings++ : 0;
  for (cudaStream_t stream : streams) {
    if (stream->recording != recording)
      throw Fault("streams of one collective, but not of one capture");
    if (recording) {
      Push(stream, Step::kMeet, number, work);
    } else {
      stream->queue.push_back([meeting, stream] { Arrive(meeting, stream); });
    }
  }
}

std::function<bool(cudaStream_t)>& Ready() {
  static std::function<bool(cudaStream_t)> ready;
  return ready;
}

int DeviceOf(cudaStream_t stream) { return stream == nullptr ? CurrentDevice() : stream->device; }

}  // namespace simt

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st{simt::CurrentDevice(), {}, nullptr};
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (simt::Host().failed >= 0) stream->queue.clear();  // nothing of it will run
  const cudaError_t status = Drain(stream);
  delete stream;
  return status;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++simt::Host().waits;
  return Drain(stream);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (simt::Host().failed == simt::DeviceOf(stream)) return cudaErrorLaunchFailure;
  if (simt::Host().failed >= 0) return cudaErrorNotReady;  // waits for the failed one
  if (simt::Ready() && !simt::Ready()(stream)) return cudaErrorNotReady;
  return cudaStreamSynchronize(stream);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  // Marks the end of the queue; more work may come behind it before somebody waits.
  *event = {};
  if (stream == nullptr) return cudaSuccess;
  if (stream->recording) {
    event->recording = stream->recording;
    event->number = stream->recording->marks++;
    Push(stream, Step::kRecord, event->number, nullptr);
    return cudaSuccess;
  }
  event->mark = std::make_shared<Mark>(Mark{stream});
  stream->queue.push_back([mark = event->mark] { mark->reached = true; });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->mark) RunUpTo(event->mark);
  simt::OpenMemoryOf(-1);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->recording) {
    if (!stream->recording) {  // becomes a branch of the capture
      stream->recording = event->recording;
      stream->recording->streams.push_back(stream);
      stream->recording->devices.push_back(stream->device);
    }
    if (stream->recording != event->recording) return cudaErrorInvalidValue;
    Push(stream, Step::kWait, event->number, nullptr);
  } else if (event->mark) {
    if (stream->recording) return cudaErrorInvalidValue;
    stream->queue.push_back([mark = event->mark] { RunUpTo(mark); });
  }
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;  // time means nothing here
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->recording) return cudaErrorInvalidValue;
  stream->recording = std::make_shared<Recording>(Recording{{stream}, {stream->device}, {}});
  ++simt::Host().captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::shared_ptr<Recording> recording = stream->recording;
  if (!recording || recording->streams[0] != stream) return cudaErrorInvalidValue;
  for (cudaStream_t each : recording->streams) each->recording.reset();
  if (!recording->Joined()) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{recording};
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->recording};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++simt::Host().graph_launches;
  simt::Enqueue(stream, [recording = exec->recording] { Replay(*recording); });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
