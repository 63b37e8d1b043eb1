#include "tools/kdtrain/schema.h"

#include <gtest/gtest.h>

#include "nn/data/registry.h"
#include "nn/models/registry.h"
#include "tests/tools/recipe_fixture.h"

namespace retort::tools {
namespace {

TEST(Schema, every_row_is_complete_and_its_default_fits) {
  for (const KeySpec& spec : schema()) {
    EXPECT_EQ(nn::fitting(spec, spec.fallback), spec.fallback) << spec.key;
    if (spec.neutral) {
      EXPECT_TRUE(nn::fitting(spec, *spec.neutral)) << spec.key;
    }
    EXPECT_FALSE(spec.doc.empty()) << spec.key;
    EXPECT_EQ(find_key(spec.key), &spec);
  }
}

TEST(Schema, rows_of_registries_stand_in_their_sections) {
  // Names are not listed twice.
  EXPECT_EQ(split(find_key("student.arch")->choices, '|'), nn::model_kinds().names());
  EXPECT_EQ(split(find_key("teacher.arch")->choices, '|'), nn::model_kinds().names());
  EXPECT_EQ(split(find_key("data.format")->choices, '|'), nn::data_kinds().names());
  for (const char* section : {"student.", "teacher."})
    for (const auto& kind : nn::model_kinds().rows())
      for (const KeySpec& option : kind->options)
        EXPECT_NE(find_key(section + option.key), nullptr) << section << option.key;
  EXPECT_NE(find_key("data.length"), nullptr);
  EXPECT_NE(find_key("data.masked"), nullptr);
  EXPECT_NE(find_key("teacher.train.masked"), nullptr);
  // What several rows read is one key that takes what any of them takes.
  const KeySpec& shortcut = *find_key("student.shortcut");
  EXPECT_EQ(shortcut.choices, "auto|A|B|C");
  EXPECT_EQ(shortcut.doc, "Residual shortcut of CIFAR ResNets: A pads, B projects.");
  // Sections have defaults of their own, and no arm has a teacher of its own.
  EXPECT_EQ(find_key("teacher.hidden")->fallback, Value(nn::Ints{1024}));
  EXPECT_EQ(find_key("student.hidden")->fallback, Value(nn::Ints{32}));
  EXPECT_TRUE(find_key("student.hidden")->in_arm);
  EXPECT_FALSE(find_key("teacher.hidden")->in_arm);
  EXPECT_FALSE(find_key("teacher.train.augment")->in_arm);
  EXPECT_TRUE(find_key("data.augment")->in_arm);
  EXPECT_FALSE(find_key("data.normalize")->effects & nn::kChangesResult);
  EXPECT_TRUE(find_key("student.normalize")->effects & nn::kChangesResult);
}

TEST(Schema, effects_say_what_a_key_decides) {
  for (const char* key :
       {"name", "description", "data.root", "train.jobs", "train.log_steps", "train.graph",
        "train.prefetch", "train.checkpoint_keep", "teacher.cache", "report.baseline"})
    EXPECT_FALSE(find_key(key)->effects & nn::kChangesResult) << key;
  for (const char* key : {"train.lr", "train.micro_batch", "train.slices", "data.train_sample",
                          "student.init", "distill.cutoff", "distill.parameter", "curriculum.file"})
    EXPECT_TRUE(find_key(key)->effects & nn::kChangesResult) << key;
}

}  // namespace
}  // namespace retort::tools
