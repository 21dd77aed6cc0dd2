#include "wire/gate.h"

#include <zmq.h>

#include <cerrno>
#include <vector>

#include "configs/error.h"
#include "configs/json.h"

namespace temper::wire {
namespace {

constexpr char kEndpoint[] = "inproc://zeromq.zap.01";

/// One question: version, id, domain, address, identity, mechanism, key. Empty: none waits.
std::vector<std::string> Question(void* handle) {
  std::vector<std::string> frames;
  for (bool more = true; more;) {
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, handle, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&frame);
      if (errno == EINTR) continue;
      return {};
    }
    frames.emplace_back(static_cast<const char*>(zmq_msg_data(&frame)), zmq_msg_size(&frame));
    more = zmq_msg_more(&frame) != 0;
    zmq_msg_close(&frame);
  }
  return frames;
}

void Reply(void* handle, const std::string& id, bool welcome, const std::string& user) {
  const std::string frames[] = {
      "1.0", id, welcome ? "200" : "400", welcome ? "" : "the key is not on the list", user, ""};
  for (std::size_t i = 0; i < 6; ++i) {
    // In this process and bounded by the questions: it cannot fail.
    zmq_send(handle, frames[i].data(), frames[i].size(), ZMQ_DONTWAIT | (i < 5 ? ZMQ_SNDMORE : 0));
  }
}

bool Same(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

Gate::Gate(void* context, Keys keys)
    : handle_(zmq_socket(context, ZMQ_REP)), keys_(std::move(keys)) {
  const int linger = 0;
  if (handle_ == nullptr || zmq_setsockopt(handle_, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
      zmq_bind(handle_, kEndpoint) != 0) {
    const std::string why = zmq_strerror(errno);
    if (handle_ != nullptr) zmq_close(handle_);
    throw MachineError(keys_.path + ": no handler for handshakes: " + why);
  }
  stat(keys_.path.c_str(), &seen_);
}

Gate::~Gate() { zmq_close(handle_); }

void Gate::Reload(Refusals* refusals, std::int64_t now_us) {
  struct stat now {};
  if (stat(keys_.path.c_str(), &now) != 0 || Same(now, seen_)) return;
  seen_ = now;
  try {
    Keys keys = ReadKeys(keys_.path);
    if (keys.public_key != keys_.public_key || !keys.is_learner) {
      throw UserError(keys_.path + ": another learner's keys");
    }
    keys_ = std::move(keys);
  } catch (const std::exception& error) {
    refusals->Add("key_file", std::string(error.what()) + "; the former allow-list stays", now_us);
  }
}

void Gate::Answer(Refusals* refusals, std::int64_t now_us) {
  for (auto question = Question(handle_); !question.empty(); question = Question(handle_)) {
    Reload(refusals, now_us);
    const bool whole = question.size() == 7 && question[5] == "CURVE" && question[6].size() == 32;
    const std::string id = question.size() > 1 ? question[1] : "";
    char key[41] = {};
    if (whole) zmq_z85_encode(key, reinterpret_cast<const std::uint8_t*>(question[6].data()), 32);
    const auto listed = keys_.allow.find(key);
    const bool welcome = whole && listed != keys_.allow.end();
    Reply(handle_, id, welcome, welcome ? listed->second : "");
    if (welcome) continue;
    const std::string from = question.size() > 3 ? question[3] : "somewhere";
    refusals->Add("unlisted_key",
                  "a peer at " + (from.empty() ? "this machine" : from) + " was refused: its key " +
                      (whole ? key : "(none)") + " is not on the allow-list of " + keys_.path,
                  now_us);
  }
}

}  // namespace temper::wire
