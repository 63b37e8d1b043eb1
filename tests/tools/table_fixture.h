// Runs of kdtrain on tables: small perceptrons, so that many arms take no time, and every number
// that a switch decides can be looked up in the log and the weights.
#pragma once
#include <cmath>

#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {

class KdtrainTable : public Kdtrain {
 protected:
  // Four numbers and one of three classes, which moves the first two of them.
  void table(const std::string& name, int rows, std::uint32_t seed) const {
    std::ostringstream text;
    text << "a,b,c,d,label\n";
    for (int i = 0; i < rows; ++i) {
      const int label =
          static_cast<int>(philox(seed, 1, static_cast<std::uint32_t>(i), 0, 0).v[0] % 3);
      const Philox4 r = philox(seed, 0, static_cast<std::uint32_t>(i), 0, 0);
      for (int c = 0; c < 4; ++c) {
        const double noise = static_cast<double>(r.v[c] >> 8) / (1 << 24) - 0.5;
        text << noise + (c == 0 ? label : c == 1 ? (label == 1 ? 2 : 0) : 0) << ",";
      }
      text << label << "\n";
    }
    write("data/" + name, text.str());
  }

  // 40 rows, batches of 10, one line a step; rates are constant.
  std::string recipe(const std::string& rest) const {
    table("train.csv", 40, 1);
    table("test.csv", 30, 2);
    return write("table.toml", R"(
name = "table"
data = { format = "table", root = "data", train_files = ["train.csv"], test_files = ["test.csv"], standardize = true }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 40, batch = 10, lr = 0.2, momentum = 0.0 }
[student]
arch = "mlp"
hidden = [8]
[distill]
temperature = 1.0
[train]
steps = 4
batch = 10
lr = 0.1
momentum = 0.0
log_steps = 1
)" + rest);
  }
  static std::string arm(const std::string& name, const std::string& keys = "") {
    return "[[arm]]\nname = \"" + name + "\"\n" + keys + "\n";
  }
  Result run_into(const std::string& out, std::vector<std::string> args) const {
    args.insert(args.begin(), "run");
    args.insert(args.end(), {"--device", "cpu", "--out", out});
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
    return r;
  }

  // Lines of one arm and split, in order.
  std::vector<Json> lines_of(const std::string& out, const std::string& arm,
                             const std::string& split = "train") const {
    std::vector<Json> found;
    std::istringstream log(read(folder_ / out / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      Json line = Json::parse(text, "metrics.jsonl");
      if (line.at("arm").as_string() == arm && line.at("split").as_string() == split)
        found.push_back(std::move(line));
    }
    return found;
  }
  std::vector<double> logged(const std::string& out, const std::string& arm, const char* key,
                             const std::string& split = "train") const {
    std::vector<double> values;
    for (const Json& line : lines_of(out, arm, split)) values.push_back(line.at(key).as_number());
    return values;
  }

  std::string weights(const std::string& out, const std::string& arm, int seed = 1) const {
    return path(out + "/arms/" + arm + "/seed" + std::to_string(seed) + "/model.safetensors");
  }
  // All tensors whose names begin so, one after the other.
  static std::vector<float> values(const std::string& file, const std::string& prefix = "") {
    std::vector<float> all;
    const SafetensorsReader reader(file);
    for (const SafetensorsEntry& entry : reader.header().entries) {
      if (!entry.name.starts_with(prefix)) continue;
      const std::vector<float> one = reader.read(entry).to_vector<float>();
      all.insert(all.end(), one.begin(), one.end());
    }
    EXPECT_FALSE(all.empty()) << file << " " << prefix;
    return all;
  }
  static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double sum = 0;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
      sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return std::sqrt(sum);
  }

  // A column of a curriculum file, by its place in "rank,index,label,score,correct,group".
  std::vector<double> column(const std::string& file, int place) const {
    std::vector<double> all;
    std::istringstream text(read(folder_ / file));
    std::string line;
    std::getline(text, line);
    while (std::getline(text, line)) {
      std::istringstream cells(line);
      std::string cell;
      for (int c = 0; c <= place; ++c) std::getline(cells, cell, ',');
      all.push_back(std::stod(cell));
    }
    return all;
  }
};

}  // namespace retort::tools
