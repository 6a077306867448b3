import { expect, test } from "vitest";
import { decode, encode, START, type State } from "../core/state.ts";

test("a state is its link, and the start is short", () => {
  expect(encode(START)).toBe("v=1");
  const state: State = {
    ...START,
    model: "resnet50 & more",
    target: "text:ein rotes Auto, 红车",
    muted: [{ layer: "layer4", numbers: [3, 9], factor: 0.5 }],
    look: { opacity: 0.3, colormap: "jet" },
    zoom: { x: 0.25, y: 0.5, scale: 3 },
    pinned: [4],
    place: [12.5, 80],
    missed: [1, 2, 30, 40],
    heat: false,
  };
  expect(decode(`#${encode(state)}`)).toEqual(state);
});

test("what a link doesn't say right is as at the start", () => {
  expect(decode("")).toEqual(START);
  expect(decode("#v=2&target=cat")).toEqual(START);
  const broken = "#v=1&zoom=%7B%7D&muted=[1]&split=9&panel=none&pinned=[null]&place=[1]&heat=7&news=1&look=null&target=cat";
  expect(decode(broken)).toEqual({ ...START, target: "cat" });
});
