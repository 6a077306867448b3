/** Close a dialog by a click beside it. */
export function closedOutside(dialog: HTMLElement) {
  const onclick = ({ target, clientX, clientY }: MouseEvent) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const outside = clientX < left || clientX > right || clientY < top || clientY > bottom;
    if (target === dialog && outside) (dialog as HTMLDialogElement).close();
  };
  dialog.addEventListener("click", onclick);
  return () => dialog.removeEventListener("click", onclick);
}
