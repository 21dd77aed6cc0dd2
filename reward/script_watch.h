#pragma once
// Reward scripts that change while a run goes on: taken when they compile and their own cases hold.
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "configs/config.h"
#include "reward/host.h"
#include "reward/zygote.h"

namespace temper::reward {

struct ScriptWatchOptions {
  std::vector<configs::RewardFunction> rewards;
  configs::Reward reward;  // the limits in which cases run
  std::vector<std::string> zygote_argv = {"/proc/self/exe", "reward-zygote"};
  double period_s = 1;
  /// All texts, one of them new. Called on the thread that looks, as `note` is.
  std::function<void(const ScriptTexts&)> accept;
  std::function<void(const std::string&)> note;  // a line for the log
};

/// Looks at the files' contents. A text that cannot be read, does not compile, has no score() or
/// fails a case of its own is named once, and the text in use stays.
class ScriptWatch {
 public:
  /// `texts` are in use: nothing is said of them.
  ScriptWatch(ScriptWatchOptions options, ScriptTexts texts);
  ~ScriptWatch();  // ends the thread; waits for the cases under way
  ScriptWatch(const ScriptWatch&) = delete;

  /// Looks every period_s from now on, on a thread of its own.
  void Start();
  /// One look at every file.
  void Look();

 private:
  void Run();
  void LookAt(const std::string& path, std::string* used);
  /// Why the text is not taken, "" = it is.
  std::string Refusal(const std::string& path, const std::string& text);

  const ScriptWatchOptions options_;
  ScriptTexts texts_;
  std::map<std::string, std::string> seen_;  // by path: the last state that was judged
  std::shared_ptr<Zygote> zygote_;           // started for the first change
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;  // mutex_
  std::thread thread_;
};

}  // namespace temper::reward
