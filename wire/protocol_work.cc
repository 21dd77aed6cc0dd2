#include <algorithm>

#include "wire/protocol_fields.h"

namespace temper::wire {

Message Grant::Encode() const {
  Message m = Start(Kind::kGrant);
  m.header = {{"session", Hex(session)},
              {"version", version},
              {"seed", sampling.seed},
              {"max_new_tokens", sampling.max_new_tokens},
              {"temperature", sampling.temperature},
              {"top_p", sampling.top_p},
              {"top_k", sampling.top_k},
              {"min_p", sampling.min_p},
              {"experts", sampling.experts},
              {"kept", sampling.kept}};
  std::vector<std::uint64_t> grps;
  std::vector<std::int32_t> attempts, prompt_ids;
  std::vector<std::uint32_t> prompt_counts, sample_counts, samples;
  for (const GrantedGroup& g : groups) {
    grps.push_back(g.grp);
    attempts.push_back(g.attempt);
    prompt_counts.push_back(static_cast<std::uint32_t>(g.prompt_ids.size()));
    prompt_ids.insert(prompt_ids.end(), g.prompt_ids.begin(), g.prompt_ids.end());
    sample_counts.push_back(static_cast<std::uint32_t>(g.samples.size()));
    samples.insert(samples.end(), g.samples.begin(), g.samples.end());
  }
  m.Add(grps);
  m.Add(attempts);
  m.Add(prompt_counts);
  m.Add(prompt_ids);
  m.Add(sample_counts);
  m.Add(samples);
  m.Add(sampling.stop_ids);
  return m;
}

Grant Grant::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kGrant, "grant");
  fields.ExpectArrays(7);
  Grant grant;
  grant.session = U64FromHex(fields, "session");
  grant.version = static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32));
  grant.sampling.seed = static_cast<std::uint64_t>(fields.Int("seed", 0, kMaxI64));
  grant.sampling.max_new_tokens = static_cast<int>(fields.Int("max_new_tokens", 1, kMaxI32));
  grant.sampling.temperature = fields.Number("temperature");
  grant.sampling.top_p = fields.Number("top_p");
  grant.sampling.top_k = static_cast<int>(fields.Int("top_k", 0, kMaxI32));
  grant.sampling.min_p = fields.Number("min_p");
  grant.sampling.experts = fields.Bool("experts");
  grant.sampling.kept = fields.Bool("kept");
  const auto grps = fields.Values<std::uint64_t>(0);
  const auto attempts = fields.Values<std::int32_t>(1);
  const auto prompt_counts = fields.Values<std::uint32_t>(2);
  const auto sample_counts = fields.Values<std::uint32_t>(4);
  if (attempts.size() != grps.size() || prompt_counts.size() != grps.size() ||
      sample_counts.size() != grps.size()) {
    fields.Fail("one attempt, prompt and sample count belong to each group");
  }
  auto prompts = Split(fields, fields.Values<std::int32_t>(3), prompt_counts);
  auto samples = Split(fields, fields.Values<std::uint32_t>(5), sample_counts);
  for (std::size_t i = 0; i < grps.size(); ++i) {
    grant.groups.push_back({grps[i], attempts[i], std::move(prompts[i]), std::move(samples[i])});
  }
  grant.sampling.stop_ids = fields.Values<std::int32_t>(6);
  return grant;
}

Message Rollout::Encode() const {
  Message m = Start(Kind::kRollout);
  m.header = {{"session", Hex(session)}, {"grp", id.grp},    {"sample", id.sample},
              {"attempt", id.attempt},   {"finish", finish}, {"version", version}};
  m.Add(ids);
  m.Add(logp);
  m.Add(versions);
  m.Add(experts);
  m.Add(kept);
  return m;
}

Rollout Rollout::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kRollout, "rollout");
  fields.ExpectArrays(5);
  Rollout rollout;
  rollout.session = U64FromHex(fields, "session");
  rollout.id = {static_cast<std::uint64_t>(fields.Int("grp", 0, kMaxI64)),
                static_cast<std::uint32_t>(fields.Int("sample", 0, kMaxU32)),
                static_cast<std::int32_t>(fields.Int("attempt", 0, kMaxI32))};
  rollout.finish = Finish(fields, fields.Text("finish"));
  rollout.version = static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32));
  rollout.ids = fields.Values<std::int32_t>(0);
  rollout.logp = fields.Values<float>(1);
  rollout.versions = fields.Values<std::uint32_t>(2);
  rollout.experts = fields.Values<std::uint16_t>(3);
  rollout.kept = fields.Values<std::int32_t>(4);
  if (rollout.logp.size() != rollout.ids.size()) {
    fields.Fail(std::to_string(rollout.ids.size()) + " ids, but " +
                std::to_string(rollout.logp.size()) + " log-probs");
  }
  if (!rollout.versions.empty() && rollout.versions.size() != rollout.ids.size()) {
    fields.Fail(std::to_string(rollout.ids.size()) + " ids, but " +
                std::to_string(rollout.versions.size()) + " versions");
  }
  return rollout;
}

Message Ack::Encode() const {
  Message m = Start(Kind::kAck);
  std::vector<std::uint64_t> grps;
  std::vector<std::uint32_t> samples;
  std::vector<std::int32_t> attempts;
  for (const RolloutId& id : rollouts) {
    grps.push_back(id.grp);
    samples.push_back(id.sample);
    attempts.push_back(id.attempt);
  }
  m.Add(grps);
  m.Add(samples);
  m.Add(attempts);
  return m;
}

Ack Ack::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kAck, "ack");
  fields.ExpectArrays(3);
  const auto grps = fields.Values<std::uint64_t>(0);
  const auto samples = fields.Values<std::uint32_t>(1);
  const auto attempts = fields.Values<std::int32_t>(2);
  if (samples.size() != grps.size() || attempts.size() != grps.size()) {
    fields.Fail("one sample and attempt belong to each group");
  }
  Ack ack;
  for (std::size_t i = 0; i < grps.size(); ++i) {
    ack.rollouts.push_back({grps[i], samples[i], attempts[i]});
  }
  return ack;
}

Message ScoreRequest::Encode() const {
  Message m = Start(Kind::kScoreRequest);
  Json finishes = Json::array();
  std::vector<std::uint8_t> finish;
  std::vector<std::uint32_t> numbers, versions, text_counts, id_counts;
  std::string texts;
  std::vector<std::int32_t> ids;
  for (const Sample& s : samples) {
    numbers.push_back(s.sample);
    versions.push_back(s.version);
    const auto known = std::find(finishes.begin(), finishes.end(), Json(s.finish));
    finish.push_back(static_cast<std::uint8_t>(known - finishes.begin()));
    if (known == finishes.end()) finishes.push_back(s.finish);
    text_counts.push_back(static_cast<std::uint32_t>(s.completion.size()));
    texts += s.completion;
    id_counts.push_back(static_cast<std::uint32_t>(s.completion_ids.size()));
    ids.insert(ids.end(), s.completion_ids.begin(), s.completion_ids.end());
  }
  m.header = {{"id", Hex(id)},
              {"grp", grp},
              {"step", step},
              {"has_answer", answer.has_value()},
              {"finishes", std::move(finishes)}};
  m.AddText(prompt);
  m.AddText(row);
  m.AddText(answer.value_or(""));
  m.Add(numbers);
  m.Add(versions);
  m.Add(finish);
  m.Add(text_counts);
  m.AddText(texts);
  m.Add(id_counts);
  m.Add(ids);
  return m;
}

ScoreRequest ScoreRequest::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kScoreRequest, "score_request");
  fields.ExpectArrays(10);
  ScoreRequest request;
  request.id = U64FromHex(fields, "id");
  request.grp = static_cast<std::uint64_t>(fields.Int("grp", 0, kMaxI64));
  request.step = fields.Int("step", 0, kMaxI64);
  request.prompt = fields.Chars(0);
  request.row = fields.Chars(1);
  if (fields.Bool("has_answer")) request.answer = fields.Chars(2);
  const auto numbers = fields.Values<std::uint32_t>(3);
  const auto versions = fields.Values<std::uint32_t>(4);
  const auto finish = fields.Values<std::uint8_t>(5);
  const auto text_counts = fields.Values<std::uint32_t>(6);
  const auto id_counts = fields.Values<std::uint32_t>(8);
  const std::size_t n = numbers.size();
  if (versions.size() != n || finish.size() != n || text_counts.size() != n ||
      id_counts.size() != n) {
    fields.Fail("one version, finish, text and id count belong to each sample");
  }
  const Json& finishes = List(fields, message.header, "finishes");
  auto texts = Split(fields, fields.Values<std::uint8_t>(7), text_counts);
  auto ids = Split(fields, fields.Values<std::int32_t>(9), id_counts);
  for (std::size_t i = 0; i < n; ++i) {
    if (finish[i] >= finishes.size() || !finishes[finish[i]].is_string()) {
      fields.Fail("a finish is not in the list");
    }
    request.samples.push_back({numbers[i], versions[i],
                               Finish(fields, finishes[finish[i]].get<std::string>()),
                               std::string(texts[i].begin(), texts[i].end()), std::move(ids[i])});
  }
  return request;
}

}  // namespace temper::wire
