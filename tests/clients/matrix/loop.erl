%% A new gen_tcp connection for every operation, by 8 processes; ends with the line ANSWERED WRONG FDS.
%% Run by escript. Usage: loop.erl inet|socket, the backends of gen_tcp.
-mode(compile).

open_files() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

value_of(Key) ->
    "value-of-" ++ Key.

look_up(Host, Port, Backend, Key) ->
    {ok, Socket} = gen_tcp:connect(Host, Port, [{inet_backend, Backend}, list, {active, false},
                                                {packet, line}], 10000),
    Value = value_of(Key),
    ok = gen_tcp:send(Socket, io_lib:format("set ~s 0 0 ~b\r\n~s\r\nget ~s\r\n",
                                            [Key, length(Value), Value, Key])),
    [_, _, Found, _] = [begin {ok, Line} = gen_tcp:recv(Socket, 0, 10000), Line end
                        || _ <- lists:seq(1, 4)],
    ok = gen_tcp:close(Socket),
    string:trim(Found).

worker(Parent, Host, Port, Backend, Numbers) ->
    [begin
         Key = "key-" ++ integer_to_list(Number),
         Found = look_up(Host, Port, Backend, Key),
         Parent ! {Key, Found}
     end || Number <- Numbers].

count(0, Answered, Wrong) ->
    {Answered, Wrong};
count(Left, Answered, Wrong) ->
    receive
        {Key, Found} ->
            case value_of(Key) of
                Found -> count(Left - 1, Answered + 1, Wrong);
                _ ->
                    io:format(standard_error, "~s has ~s~n", [Key, Found]),
                    count(Left - 1, Answered, Wrong + 1)
            end
    after 30000 ->
        {Answered, Wrong}
    end.

main([Backend]) ->
    [Server, Port] = string:split(os:getenv("APP_SERVER"), ":"),
    {ok, Host} = inet:parse_address(Server),
    Operations = list_to_integer(os:getenv("APP_OPERATIONS")),
    Concurrency = list_to_integer(os:getenv("APP_CONCURRENCY")),
    Self = self(),
    Files = open_files(),
    [spawn(fun() -> worker(Self, Host, list_to_integer(Port), list_to_atom(Backend),
                           lists:seq(First, Operations - 1, Concurrency)) end)
     || First <- lists:seq(0, Concurrency - 1)],
    {Answered, Wrong} = count(Operations, 0, 0),
    io:format("~b ~b ~b~n", [Answered, Wrong, open_files() - Files]),
    halt(if Answered =:= Operations -> 0; true -> 1 end).
