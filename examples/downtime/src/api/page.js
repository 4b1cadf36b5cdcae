// Shows what is new every five seconds, as long as somebody looks and does not type.
setInterval(async () => {
  if (document.hidden || document.activeElement?.matches("input")) return;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = next.title;
    document.getElementById("page").innerHTML = next.getElementById("page").innerHTML;
  } catch {
    // It is tried again in five seconds.
  }
}, 5000);
