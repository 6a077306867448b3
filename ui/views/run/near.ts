// Drawing what comes near what is seen, or is printed.

const waiting = new Map<Element, () => void>();
const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) draw(target);
  },
  { rootMargin: "400px" },
);
window.addEventListener("beforeprint", () => [...waiting.keys()].forEach(draw));

function draw(node: Element): void {
  const action = waiting.get(node);
  leave(node);
  action?.();
}

function leave(node: Element): void {
  observer.unobserve(node);
  waiting.delete(node);
}

/** Do something once, when an element comes near. */
export const whenNear = (action: () => void) => (node: Element) => {
  waiting.set(node, action);
  observer.observe(node);
  return () => leave(node);
};
