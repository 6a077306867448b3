import { describe, expect, test } from "vitest";
import { everything, type Query, RunTable } from "../views/run/table.ts";

const UNKNOWN = ["where", "truth", "layer", "method", "entropy", "border", "corner", "in_box", "in_mask", "iou"];
const columns = {
  ...Object.fromEntries(UNKNOWN.map((name) => [name, [null, null, null, null]])),
  id: ["a/1.jpg", "b/2.jpg", "b/2.jpg", "c/3.jpg"],
  label: ["cat, house cat", "dog", "dog", null],
  label_index: [0, 1, 1, null],
  prediction: ["cat, house cat", "dog", "dog", "owl"],
  correct: [true, true, true, null],
  asked: ["predicted", "predicted", "label", "predicted"],
  target: ["cat, house cat", "dog", "dog", "owl"],
  target_index: [0, 1, 1, 2],
  target_score: [3, 4, 4, 5],
  target_probability: [0.5, 0.9, 0.9, 0.7],
  probability: [0.5, 0.9, 0.9, 0.7],
  evidence: ["some", "some", "some", "none"],
  half_area: [0.2, NaN, NaN, 0.1],
};
const table = new RunTable(columns, [{ name: "half_area", group: "Map", unit: "share" }], 4);
const find = (query: Partial<Query>, within?: number[]) => table.find({ ...everything(), ...query }, within);

describe("a run's rows", () => {
  test("that say the same are one, unless a kind of target or some rows are asked for", () => {
    expect(find({})).toEqual([0, 1, 3]);
    expect(find({ wanted: { asked: "label" } })).toEqual([2]);
    expect(find({}, [2, 1])).toEqual([2, 1]);
    expect(table.tally(everything())).toEqual({ all: 3, alike: 1 });
  });

  test("are sorted with what isn't known last", () => {
    expect(find({ sort: "half_area" })).toEqual([3, 0, 1]);
    expect(find({ sort: "half_area", descending: true })).toEqual([0, 3, 1]);
    expect(find({ descending: true })).toEqual([3, 1, 0]);
  });

  test("are searched by words in any order, and filtered", () => {
    expect(find({ search: "HOUSE 1.jpg" })).toEqual([0]);
    expect(find({ wanted: { outcome: "unknown" } })).toEqual([3]);
    expect(find({ wanted: { evidence: "none", prediction: "dog" } })).toEqual([]);
  });

  test("say what they are", () => {
    expect(table.target(0)).toBe("cat");
    expect(table.beneath(3)).toBe("no evidence");
    expect(table.sortedBy("half_area", 0)).toBe("20.0%");
    expect(table.described(3, "faint")).toBe("c/3.jpg: heatmap for owl, 70%, faint");
    expect(table.facts(1)).toEqual([]);
  });

  test("offer only choices that there are", () => {
    expect(table.choices("label")).toEqual([
      ["cat, house cat", "cat (1)"],
      ["dog", "dog (2)"],
    ]);
    expect(table.choices("method")).toEqual([]);
    expect(table.choices("evidence")).toEqual([
      ["some", "some"],
      ["none", "none"],
    ]);
  });
});
