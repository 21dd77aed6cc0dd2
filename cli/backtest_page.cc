#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/backtest.h"

namespace temper::cli {
namespace {

constexpr std::size_t kShown = 20;        // of the largest disagreements
constexpr std::size_t kOpen = 3;          // of them with their texts in sight
constexpr std::size_t kTextShown = 1200;  // bytes of a completion
constexpr int kBars = 20;

constexpr char kStyle[] = R"css(
:root { --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --before: #98a2b3; --after: #2563eb; --bad: #b42318; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.soft { color: var(--soft); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.before { fill: var(--before); } .after { fill: var(--after); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .8em; }
details { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f8f9fb; border-radius: 6px; padding: .6rem .8rem; font-size: 13px; }
)css";

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += (c >= 0 && c < ' ' && c != '\n' && c != '\t') ? '?' : c;
    }
  }
  return out;
}

/// Cut at a whole character.
std::string Cut(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + " ... (" + std::to_string(text.size()) + " bytes)";
}

std::string Number(const std::optional<double>& value, const char* format = "%.4g") {
  if (!value) return "none";
  char text[64];
  std::snprintf(text, sizeof text, format, *value);
  return text;
}

std::string NumberOf(const Json& value, const char* format = "%.4g") {
  return value.is_number() ? Number(std::optional(value.get<double>()), format) : "none";
}

std::string Card(const std::string& what, const std::string& value) {
  return "<div class=card><span class=soft>" + what + "</span><b>" + value + "</b></div>\n";
}

std::string Share(const Json& part, const Json& whole) {
  const double all = whole.get<double>();
  if (all == 0) return "0";
  char text[64];
  std::snprintf(text, sizeof text, "%lld (%.1f %%)", static_cast<long long>(part.get<double>()),
                100 * part.get<double>() / all);
  return text;
}

/// Both distributions side by side in bars of equal width.
std::string Histogram(const Backtest& test) {
  double low = INFINITY, high = -INFINITY;
  for (const Tested& t : test.rollouts) {
    for (const auto& score : {t.before, t.after}) {
      if (!score) continue;
      low = std::min(low, *score);
      high = std::max(high, *score);
    }
  }
  if (!(low <= high)) return "<p class=soft>No rollout has a score.</p>\n";
  const double width = high > low ? (high - low) / kBars : 1;
  std::int64_t counts[2][kBars] = {}, most = 1;
  for (const Tested& t : test.rollouts) {
    for (int side = 0; side < 2; ++side) {
      const auto& score = side == 0 ? t.before : t.after;
      if (!score) continue;
      const int bar = std::clamp(static_cast<int>((*score - low) / width), 0, kBars - 1);
      most = std::max(most, ++counts[side][bar]);
    }
  }
  std::string svg = "<svg viewBox='0 0 820 220' role=img aria-label='distribution of scores'>\n";
  char text[256];
  for (int bar = 0; bar < kBars; ++bar) {
    for (int side = 0; side < 2; ++side) {
      const double height =
          170.0 * static_cast<double>(counts[side][bar]) / static_cast<double>(most);
      std::snprintf(text, sizeof text,
                    "<rect class=%s x=%d y=%.1f width=18 height=%.1f><title>%lld</title></rect>\n",
                    side == 0 ? "before" : "after", 10 + bar * 40 + side * 18, 190 - height, height,
                    static_cast<long long>(counts[side][bar]));
      svg += text;
    }
  }
  std::snprintf(text, sizeof text,
                "<text x=10 y=208>%.4g</text><text x=810 y=208 text-anchor=end>%.4g</text>"
                "<text x=10 y=12>%lld rollouts</text></svg>\n",
                low, high, static_cast<long long>(most));
  return svg + text;
}

std::string Statuses(const Json& summary) {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> rows;
  for (const auto& [status, count] : summary["statuses_before"].items()) {
    rows[status].first = count.get<std::int64_t>();
  }
  for (const auto& [status, count] : summary["statuses_after"].items()) {
    rows[status].second = count.get<std::int64_t>();
  }
  std::string table = "<table><tr><th>status<th class=n>before<th class=n>after</tr>\n";
  for (const auto& [status, counts] : rows) {
    table += "<tr><td>" + Escape(status) + "<td class=n>" + std::to_string(counts.first) +
             "<td class=n>" + std::to_string(counts.second) + "</tr>\n";
  }
  return table + "</table>\n";
}

std::string FlippedGroups(const Backtest& test) {
  std::vector<BacktestGroup> groups;
  for (const BacktestGroup& group : test.groups) {
    if (group.flipped > 0) groups.push_back(group);
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const auto& a, const auto& b) { return a.flipped > b.flipped; });
  if (groups.empty()) return "<p class=soft>No group orders its samples the other way.</p>\n";
  std::string table =
      "<table><tr><th>group<th class=n>pairs<th class=n>the other way<th class=n>equal in "
      "one</tr>\n";
  for (std::size_t i = 0; i < std::min(groups.size(), kShown); ++i) {
    table += "<tr><td>g" + std::to_string(groups[i].grp) + "<td class=n>" +
             std::to_string(groups[i].pairs) + "<td class=n>" + std::to_string(groups[i].flipped) +
             "<td class=n>" + std::to_string(groups[i].tied) + "</tr>\n";
  }
  return table + "</table>\n";
}

/// What training would notice, then what it would not: a reward that is scaled anew or moved by a
/// constant trains alike.
std::pair<double, double> Distance(const Tested& t) {
  return {std::fabs(t.advantage_before - t.advantage_after),
          t.before && t.after ? std::fabs(*t.before - *t.after) : 0};
}

/// `both`: rollouts with two different scores; else those whose score came or went. The largest
/// distance first.
std::string Disagreements(const Backtest& test, bool both) {
  std::vector<const Tested*> order;
  for (const Tested& t : test.rollouts) {
    if (t.before != t.after && (t.before && t.after) == both) order.push_back(&t);
  }
  const std::size_t shown = std::min(order.size(), kShown);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                    [](const Tested* a, const Tested* b) {
                      const auto x = Distance(*a), y = Distance(*b);
                      return x != y ? x > y : a < b;
                    });
  if (shown == 0) return "<p class=soft>There is none.</p>\n";
  std::string out;
  for (std::size_t i = 0; i < shown; ++i) {
    const Tested& t = *order[i];
    out += std::string("<details") + (i < kOpen ? " open" : "") + "><summary>" + Escape(t.name) +
           ": " + Number(t.before) + " &rarr; " + Number(t.after);
    if (t.status_after != "ok") out += " <span class=bad>" + Escape(t.status_after) + "</span>";
    out += "<span class=soft>, advantage " + Number(std::optional(t.advantage_before), "%.2f") +
           " &rarr; " + Number(std::optional(t.advantage_after), "%.2f") + "</span></summary>\n";
    if (!t.message.empty()) out += "<p class=bad>" + Escape(t.message) + "</p>";
    out += "<p class=soft>prompt</p><pre>" + Escape(Cut(t.prompt, kTextShown)) +
           "</pre><p class=soft>completion</p><pre>" + Escape(Cut(t.text, kTextShown)) + "</pre>";
    if (!t.answer.empty()) {
      out += "<p class=soft>answer</p><pre>" + Escape(Cut(t.answer, kTextShown)) + "</pre>";
    }
    out += "</details>\n";
  }
  return out;
}

}  // namespace

std::string BacktestPage(const Backtest& test, const std::string& title, const std::string& before,
                         const std::string& after) {
  const Json s = BacktestSummary(test);
  std::string page =
      "<!doctype html>\n<html lang=en><meta charset=utf-8>"
      "<meta name=viewport content='width=device-width, initial-scale=1'>\n<title>" +
      Escape(title) + "</title>\n<style>" + kStyle + "</style>\n<h1>" + Escape(title) +
      "</h1>\n<p class=soft>before: " + Escape(before) + "<br>after: " + Escape(after) +
      "</p>\n<div class=cards>\n";
  page += Card("rollouts in groups", s["rollouts"].dump() + " in " + s["groups"].dump());
  page += Card("mean score", NumberOf(s["mean_before"]) + " &rarr; " + NumberOf(s["mean_after"]));
  page += Card("other score", Share(s["changed"], s["rollouts"]));
  page += Card("correlation", NumberOf(s["correlation"], "%.3f"));
  page += Card("pairs the other way", Share(s["pairs_flipped"], s["pairs"]));
  page += Card("groups with such a pair", Share(s["groups_flipped"], s["groups"]));
  page += Card("advantage of other sign", Share(s["advantage_sign_changed"], s["rollouts"]));
  page +=
      "</div>\n<h2>Scores</h2>\n<p class=soft>"
      "<span class=key style='background:var(--before)'></span>before"
      "<span class=key style='background:var(--after)'></span>after</p>\n";
  page += Histogram(test) + "<h2>Statuses</h2>\n" + Statuses(s);
  page += "<h2>Groups whose order flips</h2>\n" + FlippedGroups(test);
  page +=
      "<h2>Largest disagreements</h2>\n<p class=soft>By the change of the advantage, (score - "
      "mean) / (standard deviation + 0.0001) in the group.</p>\n" +
      Disagreements(test, true);
  page += "<h2>Scores that came or went</h2>\n" + Disagreements(test, false);
  return page + "</html>\n";
}

}  // namespace temper::cli
