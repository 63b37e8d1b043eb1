#include "nn/optim/rank_exchange.h"

#include <algorithm>
#include <bit>
#include <string>

#include "engine/distributed/communicator.h"
#include "engine/runtime/allocator.h"
#include "kernels/grad_norm/grad_norm.h"

namespace retort::nn {
namespace {

constexpr std::int64_t kBlock = kernels::kGradNormBlock;  // a block is squared by one rank

std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

std::size_t bytes_of(std::int64_t elements) {
  return static_cast<std::size_t>(elements) * sizeof(float);
}

}  // namespace

RankExchange::Range RankExchange::Range::within(std::int64_t first, std::int64_t last) const {
  const std::int64_t from = std::clamp(begin, first, last);
  return {from, std::clamp(end, from, last)};
}

std::vector<std::int64_t> RankExchange::fitting_ranks(std::int64_t slices) {
  std::vector<std::int64_t> fitting;
  for (std::int64_t ranks = 1; ranks <= slices; ++ranks)
    if (ranks == 1 ||
        (slices % ranks == 0 && std::has_single_bit(static_cast<std::uint64_t>(slices / ranks))))
      fitting.push_back(ranks);
  return fitting;
}

void RankExchange::check_ranks(std::int64_t slices, std::int64_t ranks) {
  const std::vector<std::int64_t> fitting = fitting_ranks(slices);
  if (std::find(fitting.begin(), fitting.end(), ranks) != fitting.end()) return;
  std::string list;
  for (std::size_t i = 0; i < fitting.size(); ++i)
    list += join(i == 0 ? "" : i + 1 == fitting.size() ? " or " : ", ", fitting[i]);
  fail(ErrorCode::kUsage, "[rank_exchange] slices = ", slices, " goes with ", list,
       list == "1" ? " rank" : " ranks", ", got ", ranks);
}

RankExchange::RankExchange(Communicator& ranks, std::int64_t slices, std::int64_t numel)
    : ranks_(ranks), numel_(numel) {
  check_ranks(slices, ranks.size());
  sum_.emplace(slices, ranks.size(), own().size(), Device::kCpu);
  const MemoryRoleScope role(MemoryRole::kGradients);
  inbox_ = Tensor::empty({(ranks.size() - 1) * own().size()}, DType::kF32, Device::kCpu);
}

int RankExchange::ranks() const { return ranks_.size(); }
int RankExchange::rank() const { return ranks_.rank(); }

RankExchange::Range RankExchange::slices() const {
  return slices_of(sum_->slices(), ranks(), rank());
}

RankExchange::Range RankExchange::part(int rank) const {
  const auto begin = [&](std::int64_t r) {
    return std::min(numel_, blocks_of(numel_) * r / ranks() * kBlock);
  };
  return {begin(rank), begin(rank + 1)};
}

Tensor RankExchange::sum(const Tensor& node) {
  RETORT_CHECK(node.defined() && node.shape() == Shape{numel_} && node.dtype() == DType::kF32 &&
                   node.device() == Device::kCpu,
               "[rank_exchange] expected ", numel_, " f32 values on the CPU");
  const Range mine = own();
  std::vector<Communicator::Transfer> list;
  std::vector<Tensor> nodes;
  std::int64_t at = 0;
  for (int r = 0; r < ranks(); ++r) {
    if (r == rank()) {
      nodes.push_back(node.slice(mine.begin, mine.end));
      continue;
    }
    const Range theirs = part(r);
    list.push_back({node.data<float>() + theirs.begin, bytes_of(theirs.size()), r, true});
    nodes.push_back(inbox_.slice(at, at + mine.size()));
    list.push_back({inbox_.data<float>() + at, bytes_of(mine.size()), r, false});
    at += mine.size();
  }
  ranks_.transfer(list);
  sum_->clear();
  for (int r = 0; r < ranks(); ++r) {
    const Range s = slices_of(sum_->slices(), ranks(), r);
    sum_->add(s.begin, s.size(), nodes[static_cast<std::size_t>(r)]);
  }
  return sum_->finish();
}

std::vector<double> RankExchange::squares(const Tensor& own, std::int64_t n) {
  const std::int64_t own_size = part(rank()).within(0, n).size();
  RETORT_CHECK(n >= 0 && n <= numel_ && own.numel() >= own_size,
               "[rank_exchange] expected at most ", numel_, " elements and ", own_size, " here");
  const auto blocks = [&](int r) { return blocks_of(part(r).within(0, n).size()); };
  std::int64_t most = 0;
  for (int r = 0; r < ranks(); ++r) most = std::max(most, blocks(r));
  std::vector<double> mine(static_cast<std::size_t>(most)), in_order;
  kernels::grad_norm_squares_cpu(own.data<float>(), own_size, mine.data());
  const std::vector<double> all = gather(mine);
  for (int r = 0; r < ranks(); ++r) {
    const auto from = all.begin() + r * most;
    in_order.insert(in_order.end(), from, from + blocks(r));
  }
  return in_order;
}

void RankExchange::share(const Tensor& values) {
  RETORT_CHECK(values.defined() && values.rank() == 1 && values.numel() <= numel_ &&
                   values.dtype() == DType::kF32 && values.device() == Device::kCpu,
               "[rank_exchange] expected at most ", numel_, " f32 values on the CPU");
  std::vector<Communicator::Transfer> list;
  const auto push = [&](const Range& part, int peer, bool send) {
    list.push_back({values.data<float>() + part.begin, bytes_of(part.size()), peer, send});
  };
  for (int r = 0; r < ranks(); ++r) {
    if (r == rank()) continue;
    push(own().within(0, values.numel()), r, true);
    push(part(r).within(0, values.numel()), r, false);
  }
  ranks_.transfer(list);
}

std::vector<double> RankExchange::gather(std::span<const double> mine) {
  std::vector<double> all(mine.size() * static_cast<std::size_t>(ranks()));
  ranks_.gather(mine.data(), all.data(), mine.size_bytes());
  return all;
}

}  // namespace retort::nn
