#include "learner/core/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace temper::learner {
namespace {

std::string Rounded(double x) {
  char text[32];
  std::snprintf(text, sizeof text, x >= 100 ? "%.0f" : x >= 10 ? "%.1f" : "%.2f", x);
  return text;
}

}  // namespace

std::string Duration(double seconds) {
  if (seconds < 1) return std::to_string(std::lround(std::max(0.0, seconds) * 1000)) + " ms";
  const long s = std::lround(seconds);
  if (s < 60) return std::to_string(s) + " s";
  if (s < 3600) {
    return std::to_string(s / 60) + " min" + (s % 60 ? " " + std::to_string(s % 60) + " s" : "");
  }
  return std::to_string(s / 3600) + " h " + std::to_string(s % 3600 / 60) + " min";
}

Progress::Progress(std::string what, std::string unit, std::int64_t total, std::int64_t start)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      start_(start),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (terminal_ && width_ > 0) std::fputc('\n', stderr);
}

void Progress::At(std::int64_t done, const std::string& note) {
  const Clock::time_point now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  const bool first_or_last = last_shown_ < 0 || done >= total_;
  if (done == last_shown_ || (!first_or_last && now - shown_ < pause)) return;
  shown_ = now;
  last_shown_ = done;
  std::string line = Line(done, note);
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  const std::size_t width = line.size();
  if (width < width_) line.append(width_ - width, ' ');  // rubs out what was longer
  width_ = width;
  std::fprintf(stderr, "\r%s", line.c_str());
  std::fflush(stderr);
}

std::string Progress::Line(std::int64_t done, const std::string& note) const {
  std::string line =
      what_ + ": " + unit_ + " " + std::to_string(done) + "/" + std::to_string(total_);
  const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
  if (done > start_ + 1 && seconds > 0) {  // one alone says nothing of a rate
    const double rate = static_cast<double>(done - start_) / seconds;
    line += ", " + Rounded(rate) + " " + unit_ + "s/s, ";
    line += done < total_ ? Duration(static_cast<double>(total_ - done) / rate) + " left"
                          : "took " + Duration(seconds);
  }
  return note.empty() ? line : line + ", " + note;
}

}  // namespace temper::learner
