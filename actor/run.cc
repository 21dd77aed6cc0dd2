// The loop around the state machine: the only place of this room that knows a socket and a clock.
#include <chrono>

#include "actor/actor.h"
#include "configs/error.h"
#include "wire/client.h"

namespace temper::actor {
namespace {

Micros Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// After a stop: for the acknowledgements of what is finished. What is lost then is generated
/// again.
constexpr Micros kDrain = 2'000'000;

/// On the learner's machine its memory is nearer than its device.
void OpenFabric(const std::string& endpoint, Options* options) {
  if (options->device == "cpu" || options->fabric || endpoint.starts_with("ipc://")) return;
  try {
    options->fabric = engine::OpenFabric(options->device);
  } catch (const MachineError& error) {
    options->no_fabric = error.what();
  }
}

void Loop(wire::Client& client, Actor& actor, const std::atomic<bool>* stop) {
  wire::Incoming incoming;
  Micros drain_until = 0;
  while (!actor.done()) {
    if (stop != nullptr && *stop) {
      if (drain_until == 0) actor.Drain();
      if (drain_until == 0) drain_until = Now() + kDrain;
      if (actor.delivered() || Now() >= drain_until) return;
    }
    while (!actor.done() && client.Receive(&incoming)) {
      if (incoming.error.empty()) {
        actor.Handle(incoming.message, Now());
      } else {
        actor.HandleInvalid(incoming.error);
      }
    }
    for (const std::string& note : client.refusals().TakeNotes()) actor.Say(note);
    if (!client.refused().empty())
      throw UserError("actor " + actor.name() + ": " + client.refused());
    actor.Tick(Now());
    const bool busy = actor.Work(Now());
    client.Flush();
    while (!actor.out().empty() && client.Send(actor.out().front())) actor.out().pop_front();
    const bool unsent = client.queued() || !actor.out().empty();
    if (!busy && !actor.done()) client.Wait(actor.receiving() ? 1'000 : 100'000, -1, unsent);
  }
}

}  // namespace

int RunActor(const std::string& endpoint, Options options) {
  OpenFabric(endpoint, &options);
  wire::Client client(endpoint, options.keys);
  Actor actor(options, endpoint, Now());
  try {
    Loop(client, actor, options.stop);
  } catch (const std::exception& error) {
    // The learner hands our groups out again at once instead of after a silence.
    client.Send(wire::Goodbye{error.what(), true}.Encode());
    client.Linger(200);
    throw;
  }
  // Also the answer to the learner's own goodbye: it waits for that before it closes.
  client.Send(wire::Goodbye{actor.done() ? "the learner said goodbye" : "stopped", false}.Encode());
  client.Linger(200);
  return 0;
}

}  // namespace temper::actor
