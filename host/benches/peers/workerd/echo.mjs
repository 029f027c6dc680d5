// The bench's echo on workerd: the isolate is used again by every call.
export default {
  async fetch(request) {
    return Response.json(await request.json());
  },
};
