#pragma once
// A run's folder: who may begin it, who may go on in it, and files that appear whole.
#include <string>
#include <string_view>

#include "configs/config.h"

namespace temper::learner {

/// A fresh run: makes config.output_dir with checkpoints/ and tb/, writes config.json. Throws
/// UserError where the folder is there already (one that holds nothing but logs/, which the
/// supervisor makes, counts as fresh); nothing is touched then.
void BeginRun(const configs::Config& config);

/// A resumed run: lists what differs between the run's config (`before`) and the present one and
/// throws UserError, but for resume_allow. Keys of the resume itself, output_dir and wire.bind (by
/// default a socket in it) may differ. Then writes config.json anew.
void ContinueRun(const configs::Config& config, const Json& before);

/// Writes `path`.tmp, fsyncs, renames, fsyncs the folder. Throws MachineError with errno's text.
void WriteFileWhole(const std::string& path, std::string_view bytes);
}  // namespace temper::learner
