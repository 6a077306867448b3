/* Names for what the theme and the gallery leave nameless to screen readers. */
document.addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) link.ariaLabel ??= link.textContent.trim();
  for (const toggle of document.querySelectorAll("nav summary")) toggle.ariaLabel ??= "Show or hide what is below";
});
