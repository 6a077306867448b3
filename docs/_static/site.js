/* What the theme and the gallery leave out for screen readers and keys. */
document.addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) link.ariaLabel ??= link.textContent.trim();
  for (const toggle of document.querySelectorAll("nav summary")) toggle.ariaLabel ??= "Show or hide what is below";
  // A formula wider than a phone scrolls, with keys too.
  for (const formula of document.querySelectorAll("div.math")) if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
});
