// Replica set and user of falaj in a mongod that asks for a login. Harmless when run again.
// MONGO_HOST (host:port) says where, MONGO_SECRETS the folder with the passwords of `admin` and `falaj`.
const fs = require("fs");

const host = process.env.MONGO_HOST;
const password = (user) => fs.readFileSync(`${process.env.MONGO_SECRETS}/${user}`, "utf8").trim();
// While the image makes its first user it listens to itself alone, so it is waited for.
const options = "directConnection=true&serverSelectionTimeoutMS=120000";
const admin = connect(
  `mongodb://admin:${encodeURIComponent(password("admin"))}@${host}/admin?${options}`,
);

try {
  admin.adminCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  admin.adminCommand({ replSetInitiate: { _id: "falaj", members: [{ _id: 0, host }] } });
}
while (!admin.hello().isWritablePrimary) sleep(200);

const falaj = admin.getSiblingDB("falaj");
if (falaj.getUser("falaj") === null) {
  falaj.createUser({ user: "falaj", pwd: password("falaj"), roles: ["readWrite"] });
}
