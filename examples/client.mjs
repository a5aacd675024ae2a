// Sends a photo and a user id to a running service, and prints the items with their reasons. Node 18 or later:
//
// node examples/client.mjs PHOTO USER [URL]
import { readFile } from "node:fs/promises";

const [photo, user, url = "http://127.0.0.1:3000"] = process.argv.slice(2);
const form = new FormData();
form.set("image", new Blob([await readFile(photo)]), "photo");
form.set("user_id", user);
form.set("k", "5");
const response = await fetch(`${url}/recommend`, { method: "POST", body: form });
const answer = await response.json();
if (!response.ok) { // application/problem+json: `detail` says what was expected and what to do
  console.error(`${response.status}: ${answer.detail}`);
  process.exit(1);
}
console.log(`release ${answer.release}, tier ${answer.tier}`);
for (const item of answer.items) {
  const terms = Object.entries(item.terms).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
  console.log(`${item.item_id}  ${item.score.toFixed(2)}  ${item.title}  (${terms})  because ${item.because.join(", ")}`);
}
