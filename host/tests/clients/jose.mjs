// Encrypts standard input with jose, or decrypts it:
//   node jose.mjs encrypt|decrypt KEYFILE KID [CLAIMS AS JSON]
import { readFileSync } from "node:fs"
import { CompactEncrypt, base64url, compactDecrypt } from "jose"

const [what, file, kid, claims = "{}"] = process.argv.slice(2)
const key = base64url.decode(readFileSync(file, "utf8").trim())
const input = readFileSync(0)
if (what === "encrypt") {
  const header = { alg: "dir", enc: "A256GCM", kid, ...JSON.parse(claims) }
  process.stdout.write(await new CompactEncrypt(input).setProtectedHeader(header).encrypt(key))
} else {
  const options = { keyManagementAlgorithms: ["dir"], contentEncryptionAlgorithms: ["A256GCM"] }
  const { plaintext, protectedHeader } = await compactDecrypt(input.toString().trim(), key, options)
  if (protectedHeader.kid !== kid) throw new Error(`kid is ${protectedHeader.kid}`)
  process.stdout.write(plaintext)
}
