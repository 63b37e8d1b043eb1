// Matrix fragments and their products: ldmatrix, mma.
#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
float bf16(u32 bits) { return std::bit_cast<float>(bits << 16); }
float as_float(u32 bits) { return std::bit_cast<float>(bits); }
u32 canonical(float v) { return v == v ? std::bit_cast<u32>(v) : 0x7fff'ffffu; }

// Lanes that have left are not there to hold their part.
void whole_warp(Warp& w, u32 m) {
  if (m == ~0u) return;
  fail(w, static_cast<u32>(std::countr_zero(m)), "a matrix instruction by a part of the warp");
}

// Lanes 8k .. 8k+7 name the rows of matrix k. Lane l gets of each matrix elements 2 (l % 4) and the
// next one of row l / 4; with .trans, of the transposed matrix.
void ldmatrix(Warp& w, const Inst& i, u32 m) {
  whole_warp(w, m);
  const u32* d = list_of(w, i);
  u16 rows[32][8] = {};
  u64 at[32];
  for (u32 l = 0; l < 8u * i.list_size; ++l) {
    const u64 address = at[l] = address_of(w, i, l);
    if (address % 16) fail(w, l, "ldmatrix row at " + hex(address) + ": not aligned to 16 bytes");
    std::memcpy(rows[l], resolve(w, l, kShared, address, 16, Touch::kRead), 16);
  }
  if (w.machine->options.traffic)
    count_traffic(w, i, kShared, ~0u >> (32 - 8 * i.list_size), 16, at);
  each(m, [&](u32 l) {
    for (u32 k = 0; k < i.list_size; ++k) {
      const u32 row = l / 4, column = 2 * (l % 4);
      const u32 low = i.flag ? rows[8 * k + column][row] : rows[8 * k + row][column];
      const u32 high = i.flag ? rows[8 * k + column + 1][row] : rows[8 * k + row][column + 1];
      w.r[d[k] + l] = low | high << 16;
    }
  });
}

// mma.m16n8k16, bf16 x bf16 + f32. With group = lane / 4 and part = lane % 4:
//   a_i   row group (+ 8 for i in 2, 3, 6, 7)   column 2 part + i % 2 (+ 8 for i >= 4)
//   b_i   row 2 part + i % 2 (+ 8 for i >= 2)   column group
//   c_i   row group (+ 8 for i >= 2)            column 2 part + i % 2
void mma_m16n8k16(Warp& w, const Inst& i, u32 m) {
  whole_warp(w, m);
  const u32* r = list_of(w, i);  // d: 4, a: 4, b: 2, c: 4
  float a[16][16], b[16][8], c[16][8];
  for (u32 l = 0; l < 32; ++l) {
    const u32 group = l / 4, part = l % 4;
    for (u32 e = 0; e < 8; ++e) {
      const u32 word = w.r[r[4 + e / 2] + l];
      a[group + ((e & 2) ? 8 : 0)][2 * part + (e & 1) + (e >= 4 ? 8 : 0)] =
          bf16(e & 1 ? word >> 16 : word & 0xffff);
    }
    for (u32 e = 0; e < 4; ++e) {
      const u32 word = w.r[r[8 + e / 2] + l];
      b[2 * part + (e & 1) + (e >= 2 ? 8 : 0)][group] = bf16(e & 1 ? word >> 16 : word & 0xffff);
    }
    for (u32 e = 0; e < 4; ++e)
      c[group + (e >= 2 ? 8 : 0)][2 * part + (e & 1)] = as_float(w.r[r[10 + e] + l]);
  }
  for (u32 row = 0; row < 16; ++row) {
    float sum[8] = {};
    for (u32 k = 0; k < 16; ++k)
      for (u32 n = 0; n < 8; ++n) sum[n] += a[row][k] * b[k][n];
    for (u32 n = 0; n < 8; ++n) c[row][n] += sum[n];
  }
  for (u32 l = 0; l < 32; ++l)
    for (u32 e = 0; e < 4; ++e)
      w.r[r[e] + l] = canonical(c[l / 4 + (e >= 2 ? 8 : 0)][2 * (l % 4) + (e & 1)]);
}

}  // namespace

bool lower_matrix(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  const std::string full = l.full();
  if (op == "ldmatrix") {
    const bool trans = full == "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16";
    if (!trans && full != "ldmatrix.sync.aligned.m8n8.x4.shared.b16") return false;
    i.flow = Flow::kCollective;
    i.aligned = true;
    i.flag = trans;
    std::vector<const Operand*> parts;
    for (const Operand& o : l.arg(0).list) parts.push_back(&o);
    if (parts.size() != 4) return false;
    l.list(i, parts, "b32");
    i.space = kShared;
    l.address(i, l.arg(1));
    i.fn = ldmatrix;
    return true;
  }
  if (full == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") {
    i.flow = Flow::kCollective;
    i.aligned = true;
    std::vector<const Operand*> parts;
    for (const Operand& v : s.args)
      for (const Operand& o : v.list) parts.push_back(&o);
    if (parts.size() != 14 || s.args.size() != 4) return false;
    l.list(i, parts, "f32");
    i.fn = mma_m16n8k16;
    return true;
  }
  return false;
}
}  // namespace retort::ptx
