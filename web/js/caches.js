// Menu "SCAIL-2": removes what the pack keeps on disk, after saying how much that is.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"

const ROUTE = "/scail2_mlx/caches"
const CACHES = {
  conditioning: {
    label: "Clear encoded prompts and pictures",
    told: "The next runs encode their prompts and pictures anew.",
  },
  segments: {
    label: "Clear finished segments",
    told: "Runs that were stopped can then not go on where they were.",
  },
}

const inWords = ({ files, bytes }) => `${files} ${files === 1 ? "file" : "files"}, ${(bytes / 1e6).toFixed(1)} MB`

function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: 6000 })
}

async function clear(name) {
  const { label, told } = CACHES[name]
  try {
    const held = (await (await api.fetchApi(ROUTE)).json())[name]
    if (held.files === 0) return toast("info", label, "There is nothing to clear.")
    const sure = await app.extensionManager.dialog.confirm({ title: label, message: `${inWords(held)}. ${told}` })
    if (!sure) return
    const body = JSON.stringify({ clear: [name] })
    const headers = { "Content-Type": "application/json" }
    const answer = await (await api.fetchApi(ROUTE, { method: "POST", headers, body })).json()
    if (answer.error) throw new Error(answer.error)
    toast("success", label, `Removed ${inWords(answer[name])}.`)
  } catch (error) {
    toast("error", label, `${error.message ?? error}`)
  }
}

app.registerExtension({
  name: "scail2_mlx.caches",
  commands: Object.entries(CACHES).map(([name, { label }]) => ({
    id: `scail2_mlx.clear_${name}`,
    label,
    icon: "pi pi-trash",
    function: () => clear(name),
  })),
  menuCommands: [{ path: ["SCAIL-2"], commands: Object.keys(CACHES).map((name) => `scail2_mlx.clear_${name}`) }],
})
