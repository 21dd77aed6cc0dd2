#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "reward/frames.h"
#include "reward/isolation.h"
#include "reward/sandbox.h"
#include "reward/zygote.h"
#include "reward/zygote_wire.h"

namespace temper::reward {
namespace {

bool WriteAll(int fd, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t put = write(fd, bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    done += static_cast<std::size_t>(put);
  }
  return true;
}

/// Reads frames through a buffer: a group comes in few system calls.
class FrameReader {
 public:
  explicit FrameReader(int fd) : fd_(fd) {}
  /// The next body, valid until the call after; empty at the end.
  std::string_view Next() {
    while (true) {
      const std::string_view body = TakeFrame(bytes_, kMaxFrame, &taken_);
      if (!body.empty()) return body;
      bytes_.erase(0, taken_);
      taken_ = 0;
      char buffer[65536];
      const ssize_t got = read(fd_, buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return {};
      bytes_.append(buffer, static_cast<std::size_t>(got));
    }
  }

 private:
  int fd_;
  std::string bytes_;
  std::size_t taken_ = 0;
};

/// The life of a sandbox after its fork: frames in, outcomes out, until the host closes.
class Server {
 public:
  explicit Server(int fd) : fd_(fd), frames_(fd) {}

  int Serve(const std::string& missing) {
    AppendReady(missing, &out_);
    while (Flush()) {
      const std::string_view body = frames_.Next();
      if (body.empty()) return 0;
      if (!Handle(body)) return 2;
    }
    return 0;
  }

 private:
  bool Flush() {
    const bool done = WriteAll(fd_, out_);
    out_.clear();
    return done;
  }
  bool Handle(std::string_view body) {
    if (KindOf(body) == FrameKind::kJob) {
      function_.emplace(ReadJob(body));
      AppendLoaded({function_->loaded(), function_->scores_groups()}, &out_);
      return true;
    }
    if (!function_) return false;
    switch (KindOf(body)) {
      case FrameKind::kSample:
        ReadSample(body, &sample_);
        AppendOutcome(function_->Score(sample_), &out_);
        return true;
      case FrameKind::kGroup:
        return Group(ReadGroup(body));
      case FrameKind::kPrompts:
        Prompts(ReadRowsRequest(body));
        return true;
      default:
        return false;
    }
  }
  bool Group(std::uint32_t count) {
    std::vector<SampleInput> samples;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string_view body = frames_.Next();
      if (body.empty() || KindOf(body) != FrameKind::kSample) return false;
      ReadSample(body, &sample_);
      samples.push_back(sample_);
    }
    for (const Outcome& outcome : function_->ScoreGroup(samples)) AppendOutcome(outcome, &out_);
    return true;
  }
  void Prompts(const RowsRequest& request) {
    MadeRows made;
    made.outcome = request.count == kCases
                       ? function_->Cases(&made.rows)
                       : function_->Prompts(request.seed, request.batch, request.count, &made.rows);
    std::size_t bytes = 0;
    for (const std::string& row : made.rows) bytes += row.size() + 4;
    if (bytes > kMaxRowsFrame / 2) {
      made.rows.clear();
      made.outcome.status = Status::kInvalidReturn;
      made.outcome.score.reset();
      made.outcome.message = "the rows have more than 8 MiB";
    }
    AppendRows(made, &out_);
  }

  int fd_;
  FrameReader frames_;
  std::string out_;
  std::optional<Function> function_;
  SampleInput sample_;
};

void CloseFrom(unsigned first) {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, first, ~0u, 0u) == 0) return;
#endif
  for (unsigned fd = first; fd < 4096; ++fd) close(static_cast<int>(fd));
}

[[noreturn]] void SandboxMain(int channel, int memory_mib, pid_t zygote) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != zygote) _exit(1);  // the zygote died before the line above
  // The channel takes the place of the control descriptor; nothing else stays open.
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
  dup2(channel, kZygoteFd);
  CloseFrom(kZygoteFd + 1);
  int code = 1;
  try {
    code = Server(kZygoteFd).Serve(Isolate(kZygoteFd, memory_mib));
  } catch (const std::exception&) {
    // The host sees the channel end and says that the sandbox crashed.
  }
  _exit(code);
}

/// Reads one request and the descriptor that may come with it. False at the end.
bool Receive(int control, ZygoteRequest* request, int* passed) {
  *passed = -1;
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
  iovec data{request, sizeof *request};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  ssize_t got = -1;
  do {
    got = recvmsg(control, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
  } while (got < 0 && errno == EINTR);
  const cmsghdr* extra = CMSG_FIRSTHDR(&message);
  if (extra != nullptr && extra->cmsg_type == SCM_RIGHTS) {
    std::memcpy(passed, CMSG_DATA(extra), sizeof *passed);
  }
  return got == static_cast<ssize_t>(sizeof *request);
}

/// One script run here, so that what libraries set up at first use is set up before the forks.
void WarmUp() {
  Job job;
  job.script = "function score() error('x') end";
  RunFunction(job, SampleInput());
}

}  // namespace

int ZygoteMain(int control) {
  // A Ctrl-C goes to the whole terminal group; the host alone decides when this ends.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  if (control != kZygoteFd) dup2(control, kZygoteFd);
  CloseFrom(kZygoteFd + 1);
  fcntl(kZygoteFd, F_SETFD, FD_CLOEXEC);
  WarmUp();
  const pid_t self = getpid();
  std::set<pid_t> alive;
  ZygoteRequest request;
  int passed = -1;
  while (Receive(kZygoteFd, &request, &passed)) {
    ZygoteReply reply;
    errno = 0;
    if (request.op == ZygoteRequest::kSpawn && passed >= 0) {
      reply.value = fork();
      if (reply.value == 0) SandboxMain(passed, request.value, self);
      if (reply.value > 0) alive.insert(reply.value);
    } else if (request.op == ZygoteRequest::kReap && alive.erase(request.value) == 1) {
      int status = -1;
      while (waitpid(request.value, &status, 0) < 0 && errno == EINTR) {
      }
      reply.value = status;
    } else {
      reply.value = -1;
      errno = EINVAL;
    }
    reply.error = errno;
    if (passed >= 0) close(passed);
    if (!WriteAll(kZygoteFd, std::string(reinterpret_cast<const char*>(&reply), sizeof reply))) {
      break;
    }
  }
  for (pid_t pid : alive) kill(pid, SIGKILL);
  for (pid_t pid : alive) waitpid(pid, nullptr, 0);
  return 0;
}

}  // namespace temper::reward
