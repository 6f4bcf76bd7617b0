/* A new connection for every operation, by Boost.Asio; ends with the line ANSWERED WRONG FDS. */

#include <boost/asio.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>

using boost::asio::ip::tcp;

static int operations = std::stoi(std::getenv("APP_OPERATIONS"));
static int next_number, answered, wrong;

static long open_files()
{
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

class lookup : public std::enable_shared_from_this<lookup>
{
  public:
    lookup(boost::asio::io_context &context, const tcp::endpoint &server)
        : context(context), server(server), socket(context)
    {
    }

    void start()
    {
        if (next_number >= operations)
            return;
        key = "key-" + std::to_string(next_number++);
        value = "value-of-" + key;
        request = "set " + key + " 0 0 " + std::to_string(value.size()) + "\r\n" + value +
                  "\r\nget " + key + "\r\n";
        auto self = shared_from_this();
        socket.async_connect(server, [self](auto error) { self->connected(error); });
    }

  private:
    boost::asio::io_context &context;
    tcp::endpoint server;
    tcp::socket socket;
    std::string key, value, request, answer;

    void connected(boost::system::error_code error)
    {
        auto self = shared_from_this();
        if (error)
            return failed(error);
        boost::asio::async_write(socket, boost::asio::buffer(request), [self](auto error, auto) {
            if (error)
                self->failed(error);
        });
        boost::asio::async_read_until(socket, boost::asio::dynamic_buffer(answer), "END\r\n",
                                      [self](auto error, auto) { self->finished(error); });
    }

    void finished(boost::system::error_code error)
    {
        if (error)
            return failed(error);
        socket.close();
        if (answer.find("\r\n" + value + "\r\n") != std::string::npos) {
            answered++;
        } else {
            wrong++;
            std::cerr << key << " has " << answer << "\n";
        }
        std::make_shared<lookup>(context, server)->start();
    }

    void failed(boost::system::error_code error)
    {
        std::cerr << key << ": " << error.message() << "\n";
        std::make_shared<lookup>(context, server)->start();
    }
};

int main()
{
    std::string server = std::getenv("APP_SERVER");
    auto colon = server.rfind(':');
    tcp::endpoint endpoint(boost::asio::ip::make_address(server.substr(0, colon)),
                           std::stoi(server.substr(colon + 1)));
    boost::asio::io_context context;
    long files = open_files();
    for (int count = std::stoi(std::getenv("APP_CONCURRENCY")); count > 0; count--)
        std::make_shared<lookup>(context, endpoint)->start();
    context.run();
    std::cout << answered << " " << wrong << " " << open_files() - files << std::endl;
    return answered == operations ? 0 : 1;
}
