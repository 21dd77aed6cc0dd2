#include "cli/storing.h"

#include <chrono>
#include <memory>

#include "learner/core/progress.h"

namespace temper::cli {

engine::StoreProgress ShowStoring(const char* command) {
  using Clock = std::chrono::steady_clock;
  auto progress = std::make_shared<std::unique_ptr<learner::Progress>>();
  return [command, progress, began = Clock::now()](std::int64_t done, std::int64_t total) {
    if (!*progress) {
      if (Clock::now() - began < std::chrono::seconds(2)) return;
      *progress = std::make_unique<learner::Progress>(command, "tensor", total, done);
    }
    (*progress)->At(done);
  };
}

}  // namespace temper::cli
