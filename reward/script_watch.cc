#include "reward/script_watch.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <exception>

#include "configs/error.h"
#include "reward/cases.h"
#include "reward/function.h"

namespace temper::reward {
namespace {

std::string Short(const std::string& text) { return Sha256Hex(text).substr(0, 12); }

HostOptions HostFor(FunctionSpec function, const configs::Reward& reward,
                    const std::shared_ptr<Zygote>& zygote) {
  HostOptions host;
  host.functions = {std::move(function)};
  host.limits = {reward.timeout_s, reward.max_instructions, reward.memory_mib};
  host.zygote = zygote;
  return host;
}

}  // namespace

ScriptWatch::ScriptWatch(ScriptWatchOptions options, ScriptTexts texts)
    : options_(std::move(options)), texts_(std::move(texts)) {
  for (const auto& [path, text] : texts_) seen_[path] = text;
}

ScriptWatch::~ScriptWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ScriptWatch::Start() {
  if (texts_.empty()) return;
  // Signals belong to the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void ScriptWatch::Run() {
  const auto period = std::chrono::duration<double>(options_.period_s);
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, period, [this] { return stopping_; })) return;
    }
    try {
      Look();
    } catch (const std::exception& error) {
      // Scoring goes on with what it has; a machine at its end is told by whoever needs it.
      options_.note(std::string("reward scripts are watched no longer: ") + error.what());
      return;
    }
  }
}

void ScriptWatch::Look() {
  for (auto& [path, used] : texts_) LookAt(path, &used);
}

void ScriptWatch::LookAt(const std::string& path, std::string* used) {
  std::string text, why;
  try {
    text = ReadScript(path);
  } catch (const UserError& error) {
    why = error.what();
  }
  // Files of 64 KiB are read as fast as a change of theirs is told from their times, and an editor
  // may keep those.
  std::string& seen = seen_[path];
  const std::string state = why.empty() ? text : "\x1b" + why;  // no script begins so
  if (state == seen) return;
  seen = state;
  if (why.empty() && text == *used) {
    options_.note(path + ": is again what scores, " + Short(text));
    return;
  }
  if (why.empty()) why = Refusal(path, text);
  if (!why.empty()) {
    options_.note(why + "; the change is not taken, " + Short(*used) + " goes on scoring");
    return;
  }
  options_.note(path + ": changed from " + Short(*used) + " to " + Short(text) +
                "; groups scored from now on use it");
  *used = text;
  options_.accept(texts_);
}

std::string ScriptWatch::Refusal(const std::string& path, const std::string& text) {
  if (!zygote_) zygote_ = std::make_shared<Zygote>(options_.zygote_argv);
  try {
    // The same file may stand under several names and weights; its text is judged once.
    for (const configs::RewardFunction& entry : options_.rewards) {
      if (entry.script != path) continue;
      const FunctionSpec function = MakeFunction(entry, text);
      RewardHost host(HostFor(function, options_.reward, zygote_));
      host.Check();
      const auto cases = CasesOfScript(function, HostFor(function, options_.reward, zygote_));
      for (const Case& c : cases) {
        const CaseResult result = RunCase(c, function.name, host);
        if (result.ok) continue;
        return c.where + (c.name == c.where ? "" : " (" + c.name + ")") + ": " + result.why;
      }
      break;
    }
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace temper::reward
